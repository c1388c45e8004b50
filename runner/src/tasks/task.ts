import type { Assignment, Expansion, Output, Outcome, Reason, RunnerEvent, StatedSchedule } from "@plumule/protocol";
import type { ContainerPlace } from "../container.ts";
import type { StopOrder } from "../core/model.ts";
import type { MachineFacts } from "../machine.ts";
import type { Confinement, RunnerIsolationLevel } from "../isolation.ts";
import type { JobFacts } from "../nix/arguments.ts";
import { type ProcessResult, runProcess } from "../process.ts";
import type { Reporter } from "../reporter.ts";
import type { RunSecrets } from "../secrets/run-secrets.ts";
import type { Shade } from "../shade.ts";
import { reportKilled, type Survivors } from "../survivors.ts";
import type { Workspace } from "../workspace.ts";

/** What a task works with. */
export type TaskContext = {
  machine: MachineFacts;
  workspace: Workspace;
  assignment: Omit<Assignment, "leaseToken">;
  /** The job is an approved one of a stranger. */
  untrusted: boolean;
  /** The commit that is checked out; null for a job without a source. */
  commit: string | null;
  env: Readonly<Record<string, string>>;
  /** What the job gives to an installable that is a function. */
  job: JobFacts;
  /** Opened only for the part of a task that applies, which for a script is all of it. */
  secrets: Pick<RunSecrets, "open" | "close" | "text" | "token">;
  /** Tells the broker what work waits for, and resolves when it has taken it; false when the run has to stop first. */
  tell: (event: RunnerEvent) => Promise<boolean>;
  /** Folder of the state files of all effects. */
  effectStates: string;
  reporter: Reporter;
  /** Adds to the run's log. */
  log: (chunk: Uint8Array | string) => void;
  /** Aborted when the run must stop, with a {@link StopOrder} as reason; `kill` when its grace is over. */
  stop: AbortSignal;
  kill: AbortSignal;
  /** Counts what had to be killed, over all processes of the run. */
  survivors: Survivors;
  /** How the task's processes are held together, once one was started. */
  ran: { isolation: RunnerIsolationLevel | null };
  /** What limits all of them. */
  within: Confinement;
  /** Where they run at the level `container`. */
  container?: ContainerPlace;
  /** What they do not see at the levels below it. */
  shade?: Shade;
  silenceMs: number;
  /** The success that the job is to be compared with before anything is built; null when there is none, missing when it asks for no comparison. */
  lastSuccess?: Assignment["lastSuccess"] | null;
};

/** One built attribute with its outputs: the subject of a provenance statement. */
export type BuiltTarget = { attribute: string; drv: string; outputs: Output[] };

/** How a task ended. */
export type TaskEnd = {
  outcome: Outcome;
  exitCode: number | null;
  reason: Reason | null;
  targets: BuiltTarget[];
  /** The plan that the run made, with its text, or that it applied. */
  plan?: { sha256: string; text?: string | undefined };
  /** The schedules of the task file for the branch, of a run of all of it that ended well. */
  schedules?: StatedSchedule[];
  /** What a task file asks for whose steps are to be jobs of the lane. */
  expansion?: Expansion;
  /** What the runner's owner should know, and nobody else. */
  note?: string;
};

/** An end without outputs. */
export function ended(outcome: Outcome, exitCode: number | null, reason: Reason | null): TaskEnd {
  return { outcome, exitCode, reason, targets: [] };
}

/** Far beyond any grace: `kill` ends it. Greater values overflow a timer. */
const NEVER_MS = 2 ** 31 - 1;

/** The end of a task that was told to stop: a time-out is the job's failure, a runner that leaves or is lost is not. */
export function stopEnd(order: StopOrder, exitCode: number | null): TaskEnd {
  switch (order.reason.code) {
    case "run-timeout":
    case "silence-timeout":
    // A limit of the run, which the job reached.
    case "exit-code":
      return ended("failed", exitCode, order.reason);
    case "runner-stopped":
    case "runner-lost":
      return ended("refused", exitCode, order.reason);
    default:
      return ended("cancelled", exitCode, order.reason);
  }
}

/** The order that aborted a signal; a run is stopped with nothing else. */
export function orderOf(stop: AbortSignal): StopOrder {
  return stop.reason as StopOrder;
}

/** Runs a process of the task at the machine's isolation level, in its checkout, and counts what had to be killed. */
export async function runTaskProcess(
  context: TaskContext,
  argv: readonly string[],
  options: {
    env?: Readonly<Record<string, string>>;
    cwd?: string;
    merged: boolean;
    lend?: boolean;
    firstSignal?: NodeJS.Signals;
    cancel?: AbortSignal;
    onOutput: (chunk: Uint8Array, stream: "merged" | "stdout" | "stderr") => void;
  },
): Promise<ProcessResult> {
  const result = await runProcess({
    argv,
    cwd: options.cwd ?? context.workspace.checkout,
    env: options.env ?? context.env,
    level: context.machine.isolation,
    within: context.within,
    ...(context.container === undefined ? {} : { container: context.container }),
    ...(context.shade === undefined ? {} : { shade: context.shade }),
    merged: options.merged,
    onOutput: options.onOutput,
    lend: options.lend ?? false,
    cancel: options.cancel ?? context.stop,
    kill: context.kill,
    // The order that stops the run also says when its grace is over, which aborts `kill`.
    graceMs: NEVER_MS,
    ...(options.firstSignal === undefined ? {} : { firstSignal: options.firstSignal }),
  });
  if (result.exitCode !== null || result.reason === "lost") context.ran.isolation = context.machine.isolation;
  const { survivorsKilledCount: killedCount, leftoverCount, survivorNames: names } = result;
  reportKilled({ killedCount, leftoverCount, names }, context.survivors, context.log);
  return result;
}
