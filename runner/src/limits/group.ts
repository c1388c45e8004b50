import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { totalmem } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { RESERVE_BYTES } from "../admission/decide.ts";
import { makeCgroup, removeCgroup } from "../cgroup.ts";
import { findExecutable } from "../executable.ts";
import type { Confinement } from "../isolation.ts";
import { runningMembers, withNames } from "../process-tree.ts";
import type { Survivors } from "../survivors.ts";
import { isByCgroup, type LimitEvidence, type LimitMeans, type MachineLimits, type RunLimits } from "./limits.ts";

/** What holds all processes of a run together while it lives. */
export interface RunGroup {
  /** How each of its processes is started. */
  confinement: Confinement;
  /** What the kernel has counted; zeros where it counts nothing. */
  evidence(): Omit<LimitEvidence, "workspaceBytes">;
  /** Kills what is left in it and proves that nothing is. Answers what was found, and how many refused to go. */
  empty(): Promise<Survivors & { names: string[] }>;
  /** Removes its folders, which have to be empty. */
  remove(): void;
}

/** The least that a job without a limit of its own is left on a small machine, bytes. */
const LEAST_BYTES = 64 * 1024 * 1024;
/** Memory is accounted for in batches, so that the last of it may never be used. */
const NEARLY = 0.97;
/** How long killed processes may take to vanish, ms. */
const VANISH_MS = 2_000;
const POLL_MS = 10;

/** Opens the group of a run, named by its id. */
export function openRunGroup(
  run: string,
  limits: RunLimits,
  machine: MachineLimits,
): RunGroup | { unavailable: string } {
  const made = new Map<string, string>();
  const folderFor = (means: LimitMeans): string | null => {
    if (!isByCgroup(means)) return null;
    const folder = made.get(means.folder) ?? makeCgroup(means.folder, `${run}.limits`);
    made.set(means.folder, folder);
    return folder;
  };
  const remove = (): void => made.forEach((folder) => removeCgroup(folder));
  let memory: string | null;
  let tasks: string | null;
  try {
    memory = limits.memoryBytes === null ? null : folderFor(machine.memory);
    if (memory !== null) limitMemory(memory, limits.memoryBytes ?? 0);
    tasks = limits.taskCount === null ? null : folderFor(machine.tasks);
    if (tasks !== null) writeFileSync(join(tasks, "pids.max"), String(limits.taskCount));
  } catch (error) {
    remove();
    return { unavailable: `the limits of the run cannot be set: ${String(error)}` };
  }
  const folders = [...made.values()];
  const machineKills = machineOomKills();
  return {
    confinement: {
      joins: folders.map((folder) => join(folder, "cgroup.procs")),
      prefix: resourceLimits(limits, machine),
      cgroup: folders.find((folder) => existsSync(join(folder, "cgroup.controllers"))) ?? null,
    },
    evidence: () => ({
      oomKillCount: memory === null ? 0 : countIn(memory, ["memory.events", "memory.oom_control"], "oom_kill"),
      taskRefusalCount: tasks === null ? 0 : countIn(tasks, ["pids.events"], "max"),
      reachedMemoryLimit: memory !== null && reachedLimit(memory),
      machineOomKillCount: memory === null ? machineOomKills() - machineKills : 0,
    }),
    empty: () => emptyFolders(folders),
    remove,
  };
}

/** What a job may use of this machine's memory when nobody limits it: all but the runner's reserve, bytes. */
export function spareBytes(): number {
  const most = [totalmem(), process.constrainedMemory()].filter((bytes) => bytes > 0);
  return Math.max(LEAST_BYTES, Math.min(...most) - RESERVE_BYTES);
}

/** No memory is gained by swapping: a job that grows without end is killed, and does not drag the machine along. */
function limitMemory(folder: string, bytes: number): void {
  const set = (name: string, value: number): void => {
    if (existsSync(join(folder, name))) writeFileSync(join(folder, name), String(value));
  };
  if (existsSync(join(folder, "memory.limit_in_bytes"))) {
    writeFileSync(join(folder, "memory.limit_in_bytes"), String(bytes));
    return set("memory.memsw.limit_in_bytes", bytes);
  }
  writeFileSync(join(folder, "memory.max"), String(bytes));
  set("memory.swap.max", 0);
}

/** The words of prlimit(1) for what no cgroup limits. */
function resourceLimits({ memoryBytes, taskCount }: RunLimits, { memory, tasks }: MachineLimits): string[] {
  const prlimit = findExecutable("prlimit", process.env["PATH"] ?? "", "/");
  const options = [
    ...(memoryBytes === null || memory.by !== "rlimit" ? [] : [`--as=${memoryBytes}`]),
    // The kernel counts every task of the user.
    ...(taskCount === null || tasks.by !== "rlimit" ? [] : [`--nproc=${taskCount + tasksOfUser()}`]),
  ];
  return prlimit === null || options.length === 0 ? [] : [prlimit, ...options, "--"];
}

function tasksOfUser(): number {
  const user = process.getuid?.();
  const isOwn = (pid: string): boolean => statSync(`/proc/${pid}`, { throwIfNoEntry: false })?.uid === user;
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name) && isOwn(name));
  return pids.reduce((sum, pid) => sum + Number(/^Threads:\s+(\d+)$/m.exec(read(`/proc/${pid}/status`))?.[1] ?? 0), 0);
}

/** A counter of the first of these files that is there, whose lines are a name and a number. */
function countIn(folder: string, files: readonly string[], name: string): number {
  const text = files.map((file) => read(join(folder, file))).find((content) => content !== "") ?? "";
  return Number(new RegExp(`^${name} (\\d+)$`, "m").exec(text)?.[1] ?? 0);
}

/** Version 2 counts when an allocation was about to fail for the limit; version 1 knows the most that was used, and new kernels fill no `failcnt`. */
function reachedLimit(folder: string): boolean {
  const [most, limit] = ["memory.max_usage_in_bytes", "memory.limit_in_bytes"].map((file) => read(join(folder, file)));
  return countIn(folder, ["memory.events"], "oom") > 0 || (limit !== "" && Number(most) >= NEARLY * Number(limit));
}

/** How many processes the kernel has killed for want of memory since the machine was started, in a limited cgroup or not. */
function machineOomKills(): number {
  return Number(/^oom_kill (\d+)$/m.exec(read("/proc/vmstat"))?.[1] ?? 0);
}

async function emptyFolders(folders: readonly string[]): Promise<Survivors & { names: string[] }> {
  const killed = new Map<number, string>();
  for (const deadline = performance.now() + VANISH_MS; ; await pause(POLL_MS)) {
    const left = new Set(folders.flatMap(runningMembers));
    if (left.size === 0 || performance.now() > deadline) {
      return { killedCount: killed.size, leftoverCount: left.size, names: [...killed.values()] };
    }
    for (const { pid, name } of withNames([...left])) {
      killed.set(pid, name);
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // Gone, which is what was wanted; or another user's, which the count says.
      }
    }
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
