import { randomUUID } from "node:crypto";
import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cgroupMembers, removeCgroup } from "./cgroup.ts";

/** The environment variable by which processes that left the job's session are found again. */
export const TRACKING_VARIABLE = "PLUMULE_TRACKING_ID";

let owner: string = randomUUID();
let startedCount = 0;

/** Names all that this process starts from now on after its run, so that `findTracked` finds it when this process was killed. */
export function trackProcessesAs(run: string): void {
  owner = run;
}

/** The tracking id of the next process; one path component. */
export function nextTrackingId(): string {
  startedCount += 1;
  return `${owner}.${startedCount}`;
}

/** A process by its number and, for people, its name (`comm` of proc(5)), which it may have chosen itself. */
export interface FoundProcess {
  pid: number;
  name: string;
}

/** Everything that a job started, as far as its isolation level can know. Pids are those that the runner sees. */
export interface ProcessTree {
  /** The namespace's own init, which stays until it is killed; null without a namespace. */
  readonly init: number | null;
  /** The job's live processes and the init: empty is the proof that nothing is left. */
  remains(): number[];
  /** The job's live processes that `signal` reaches. */
  group(): number[];
  /** Sends a signal to the job's process group. */
  signal(signal: NodeJS.Signals): void;
  /** SIGKILL to everything. Answers the job's processes that it found, with their names. May be repeated. */
  kill(): FoundProcess[];
  /** Releases what the tree holds, once it is empty. */
  close(): void;
}

/**
 * The PID namespace whose init is the only child of `launcherPid`; null when that init is gone already.
 * Reading another process's namespace needs no privilege as long as it runs as the same user.
 */
export function namespaceTree(launcherPid: number): ProcessTree | null {
  return treeOf(processes().find((entry) => entry.parent === launcherPid)?.pid, []);
}

/**
 * The PID namespace of a container, whose init carries `trackingId`, and has started nothing but helpers of its own; null when it is not to be
 * seen, as on another machine.
 */
export function containerTree(trackingId: string): (ProcessTree & { init: number; helpers: readonly number[] }) | null {
  const init = findTracked(trackingId).find((pid) => /^NSpid:.*\t1$/m.test(read(`/proc/${pid}/status`) ?? ""));
  const helpers = processes().filter((entry) => entry.parent === init);
  const tree = treeOf(
    init,
    helpers.map(({ pid }) => pid),
  );
  return tree === null || init === undefined ? null : { ...tree, init, helpers: helpers.map(({ pid }) => pid) };
}

function treeOf(init: number | undefined, helpers: readonly number[]): ProcessTree | null {
  const namespace = init === undefined ? null : pidNamespace(init);
  if (init === undefined || namespace === null) return null;
  const remains = (): number[] =>
    pids().filter((pid) => pidNamespace(pid) === namespace && !helpers.includes(pid) && isRunning(processEntry(pid)));
  return {
    init,
    remains,
    group: () => inGroup(init).filter((pid) => pid !== init && !helpers.includes(pid)),
    signal: (signal) => send(-init, signal),
    kill: () => {
      const found = remains();
      const named = withNames(found.filter((pid) => pid !== init));
      // The namespace is asked first: once init is reaped its pid may belong to a stranger.
      if (found.includes(init)) send(init, "SIGKILL");
      return named;
    },
    close: () => {},
  };
}

/**
 * The process group and session led by `leader`, with every process that carries `trackingId` in its environment and,
 * when `cgroup` is a folder, every process in it.
 */
export function groupTree(leader: number, trackingId: string, cgroup: string | null): ProcessTree {
  const remains = (): number[] => {
    const inCgroup = cgroup === null ? [] : runningMembers(cgroup);
    return [...new Set([...inCgroup, ...inSession(leader), ...findTracked(trackingId)])];
  };
  return {
    init: null,
    remains,
    group: () => inGroup(leader),
    signal: (signal) => send(-leader, signal),
    kill: () => {
      const found = withNames(remains());
      if (cgroup !== null) writeFileSync(join(cgroup, "cgroup.kill"), "1");
      for (const { pid } of found) send(pid, "SIGKILL");
      return found;
    },
    close: () => {
      // An empty folder that cannot be removed at once costs nothing; the next start of the runner removes it.
      if (cgroup !== null) removeCgroup(cgroup);
    },
  };
}

/**
 * Pids whose environment, as it was when they started their program, carries the tracking id, or one that begins with it and a dot. It finds
 * daemons of a job whose supervisor was killed at the levels `cgroup` and `process-group`.
 */
export function findTracked(trackingId: string): number[] {
  const needles = [`\0${TRACKING_VARIABLE}=${trackingId}\0`, `\0${TRACKING_VARIABLE}=${trackingId}.`];
  return pids().filter((pid) => {
    const environment = read(`/proc/${pid}/environ`);
    return pid !== process.pid && environment !== null && needles.some((needle) => `\0${environment}`.includes(needle));
  });
}

/** Adds what each process is called; one that is gone meanwhile has no name. */
export function withNames(found: readonly number[]): FoundProcess[] {
  return found.map((pid) => ({ pid, name: (read(`/proc/${pid}/comm`) ?? "?").trim() }));
}

interface ProcessEntry {
  pid: number;
  state: string;
  parent: number;
  group: number;
  session: number;
}

/** Where there is no `/proc`, all that can be known is whether the group has a member. */
function running(leader: number, belongs: (entry: ProcessEntry) => boolean): number[] {
  if (!existsSync("/proc/self/stat")) return isAlive(-leader) ? [leader] : [];
  return processes()
    .filter((entry) => belongs(entry) && isRunning(entry))
    .map((entry) => entry.pid);
}

function inGroup(leader: number): number[] {
  return running(leader, (entry) => entry.group === leader);
}

/** A shell with job control gives its jobs groups of their own, but they stay in its session. */
function inSession(leader: number): number[] {
  return running(leader, (entry) => entry.group === leader || entry.session === leader);
}

/** Live processes in a cgroup. */
export function runningMembers(cgroup: string): number[] {
  return cgroupMembers(cgroup).filter((pid) => isRunning(processEntry(pid)));
}

function pids(): number[] {
  try {
    return readdirSync("/proc").map(Number).filter(Number.isInteger);
  } catch {
    return [];
  }
}

function processes(): ProcessEntry[] {
  return pids().flatMap((pid) => processEntry(pid) ?? []);
}

/** Reads proc(5) `stat`: `pid (name) state ppid pgrp session …`, where the name may hold spaces and parentheses. */
function processEntry(pid: number): ProcessEntry | null {
  const stat = read(`/proc/${pid}/stat`);
  if (stat === null) return null;
  const [state, parent, group, session] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return { pid, state: state ?? "X", parent: Number(parent), group: Number(group), session: Number(session) };
}

/** A zombie stays listed until its parent reaps it; it runs nothing. */
function isRunning(entry: ProcessEntry | null): boolean {
  return entry !== null && entry.state !== "Z" && entry.state !== "X";
}

function pidNamespace(pid: number): string | null {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return null;
  }
}

function read(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Signals a process that may be gone already, which is what the sender wants. */
function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // ESRCH: gone. EPERM: a process that changed its user; `remains` reports it as left over.
  }
}
