import type { JobLimits, Reason } from "@plumule/protocol";
import type { TaskEnd } from "../tasks/task.ts";

/** What one run may take, all its processes together; null where nothing is limited. */
export type RunLimits = { memoryBytes: number | null; taskCount: number | null; workspaceBytes: number | null };

/**
 * How a limit is kept. `cgroup-v2` and `cgroup-v1`: by the kernel, for all processes of a run together, in cgroups made in `folder`. `rlimit`: by
 * prlimit(1), for each process by itself (memory, as address space) or for all of the user (tasks). `none`: not at all, and why.
 */
export type LimitMeans =
  | { by: "cgroup-v2" | "cgroup-v1"; folder: string }
  | { by: "rlimit" }
  | { by: "none"; why: string };

/** How a machine keeps each limit that needs its kernel. Workspace, log and time are kept by the runner, everywhere. */
export type MachineLimits = { memory: LimitMeans; tasks: LimitMeans };

/** What was seen of a run's limits. Counts are since it began. */
export type LimitEvidence = {
  /** Processes of the run that the kernel killed for want of memory; 0 where no cgroup counts them. */
  oomKillCount: number;
  /** The run had reached its memory limit; else it was the machine that had no memory left. */
  reachedMemoryLimit: boolean;
  /** Processes or threads that could not be started because the run had reached its limit of tasks. */
  taskRefusalCount: number;
  /** Processes of whomever that the kernel killed for want of memory meanwhile; 0 where a cgroup counts those of the run. */
  machineOomKillCount: number;
  /** What the workspace holds at the end; null when it was not measured. */
  workspaceBytes: number | null;
};

/** Tasks of a run where nobody set a limit and a cgroup can keep one: beyond any build, far below what a machine can bear. */
const DEFAULT_TASKS = 8_192;

/** True where the kernel counts all processes of a run together. */
export function isByCgroup(means: LimitMeans): means is Extract<LimitMeans, { folder: string }> {
  return means.by === "cgroup-v2" || means.by === "cgroup-v1";
}

/**
 * The limits of a run: the runner's own, lowered by what the job asks for. A cgroup also keeps a job that nobody limited from taking all memory
 * (`spareBytes` is what may be used) and all process numbers; `prlimit` would break programs that reserve more than they use.
 */
export function limitsOf(
  own: JobLimits,
  asked: JobLimits | undefined,
  { memory, tasks, spareBytes }: MachineLimits & { spareBytes: number },
): RunLimits {
  return {
    memoryBytes: least(own.memoryBytes, asked?.memoryBytes) ?? (isByCgroup(memory) ? spareBytes : null),
    taskCount: least(own.taskCount, asked?.taskCount) ?? (isByCgroup(tasks) ? DEFAULT_TASKS : null),
    workspaceBytes: least(own.workspaceBytes, asked?.workspaceBytes),
  };
}

/** The lesser of those limits that are set; null when none is. */
export function least(...limits: readonly (number | undefined)[]): number | null {
  const set = limits.filter((limit) => limit !== undefined);
  return set.length === 0 ? null : Math.min(...set);
}

/** How each limit of a machine is kept, for a person: one line each. */
export function describeMeans({ memory, tasks }: MachineLimits): string[] {
  return [
    `memory of a job: ${meansText(memory, "each process by itself")}`,
    `tasks of a job: ${meansText(tasks, "counted for the whole user")}`,
  ];
}

function meansText(means: LimitMeans, restriction: string): string {
  switch (means.by) {
    case "cgroup-v2":
      return "limited by cgroup v2";
    case "cgroup-v1":
      return "limited by cgroup v1";
    case "rlimit":
      return `limited by prlimit, ${restriction}`;
    case "none":
      return `not limited (${means.why})`;
  }
}

/**
 * One line for the log of a run whose memory, tasks or workspace somebody has limited (`set`): what is limited, and how well. Null when only
 * defaults hold.
 */
export function describeLimits(limits: RunLimits, set: JobLimits, machine: MachineLimits): string | null {
  if (least(set.memoryBytes, set.taskCount, set.workspaceBytes) === null) return null;
  const parts = [
    limits.memoryBytes === null
      ? null
      : `memory ${sizeText(limits.memoryBytes)} (${meansText(machine.memory, "each process by itself")})`,
    limits.taskCount === null
      ? null
      : `${limits.taskCount} tasks (${meansText(machine.tasks, "counted for the whole user")})`,
    limits.workspaceBytes === null ? null : `workspace ${sizeText(limits.workspaceBytes)} (measured)`,
    set.logBytes === undefined ? null : `log ${sizeText(set.logBytes)}`,
  ];
  return `limits: ${parts.filter((part) => part !== null).join(", ")}`;
}

/** Ends of a task that the kernel's killing of a process explains. */
const EXPLAINED: ReadonlySet<Reason["code"]> = new Set([
  "exit-code",
  "build-failed",
  "evaluation-failed",
  "effect-failed",
  "runner-lost",
]);
const SIGKILLED = 137;

/** How a task ended in the light of its limits: one that failed because it reached one says so. A job that coped is not reproached. */
export function explainEnd(end: TaskEnd, limits: RunLimits, evidence: LimitEvidence): TaskEnd {
  const { workspaceBytes } = evidence;
  if (end.outcome === "succeeded" && limits.workspaceBytes !== null && (workspaceBytes ?? 0) > limits.workspaceBytes)
    return {
      ...end,
      outcome: "failed",
      targets: [],
      reason: workspaceFull(workspaceBytes ?? 0, limits.workspaceBytes),
    };
  if (end.reason === null || !EXPLAINED.has(end.reason.code)) return end;
  if (end.outcome !== "failed" && end.reason.code !== "runner-lost") return end;
  const memory = outOfMemory(end, limits, evidence);
  if (memory !== null)
    return { ...end, outcome: "failed", reason: { ...end.reason, code: "out-of-memory", ...memory } };
  if (evidence.taskRefusalCount > 0 && limits.taskCount !== null) {
    const detail = `${end.reason.detail} It had reached its limit of ${limits.taskCount} tasks, and could not start ${processes(evidence.taskRefusalCount)}.`;
    return { ...end, reason: { ...end.reason, detail, limit: "tasks" } };
  }
  return end;
}

/** What the kernel's killing of processes says about an end; null when it killed none. */
function outOfMemory(
  end: TaskEnd,
  limits: RunLimits,
  evidence: LimitEvidence,
): Pick<Reason, "detail" | "limit"> | null {
  const { oomKillCount, reachedMemoryLimit, machineOomKillCount } = evidence;
  const machine = "Out of memory: the machine had none left, and the kernel killed";
  if (oomKillCount > 0 && reachedMemoryLimit && limits.memoryBytes !== null) {
    const limit = sizeText(limits.memoryBytes);
    const detail = `Out of memory: the job reached its limit of ${limit}, and the kernel killed ${processes(oomKillCount)} of it.`;
    return { detail, limit: "memory" };
  }
  if (oomKillCount > 0) return { detail: `${machine} ${processes(oomKillCount)} of the job.` };
  // Who was killed is not known then; a job that SIGKILL ended, which this runner did not send, is the likely one.
  if (machineOomKillCount === 0 || end.outcome !== "failed" || end.exitCode !== SIGKILLED) return null;
  return { detail: `${machine} ${processes(machineOomKillCount)} while the job ran, which SIGKILL ended.` };
}

/** Why a run was stopped that filled its workspace. The nearest code that every peer knows is that of a job which failed by itself. */
export function workspaceFull(bytes: number, limitBytes: number): Reason {
  const detail = `The workspace held ${sizeText(bytes)}, more than its limit of ${sizeText(limitBytes)}.`;
  return { code: "exit-code", detail, limit: "workspace" };
}

function processes(count: number): string {
  return count === 1 ? "one process" : `${count} processes`;
}

/** A size for people. */
export function sizeText(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  const power = bytes < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  return `${Number((bytes / 1024 ** power).toFixed(1))} ${units[power]}`;
}
