import type { Command, Reason, RunId } from "@plumule/protocol";

/** Who does the work of a run: a process, by its number, when it started (numbers are given out again) and in which life of the machine. */
export type Supervisor = { version: number; pid: number; startedAt: string; boot: string };

/** A run as the journal keeps it. `running` and its supervisor are on the disk before the supervisor is told to begin. */
export type RunRecord = {
  run: RunId;
  requestKey: string;
  state: "assigned" | "running";
  supervisor: Supervisor | null;
};

/** What survives a crash of the runner. `key` is the one under which it asks for work; `spool` names the runs whose results wait. */
export type Disk = { key: string | null; runs: readonly RunRecord[]; spool: readonly RunId[] };

/** The disk of a runner that never ran. */
export const EMPTY_DISK: Disk = { key: null, runs: [], spool: [] };

/**
 * A run in memory. `lease`: a first heartbeat is being tried, was accepted, or no heartbeat is sent any more. `stage`: its supervisor waits
 * (or is being started, when it is null), works, or has ended, and the result goes into the spool.
 */
export type LiveRun = {
  run: RunId;
  requestKey: string;
  lease: "asked" | "held" | "lost";
  stage: "waiting" | "working" | "ended";
  supervisor: Supervisor | null;
  /** Number of the newest command that was obeyed. */
  seenCommand: number;
};

/** How a runner leaves: not at all, after its runs, by ending its runs, or now. */
export type Intent = "work" | "drain" | "end" | "leave";

/** What a runner knows until it crashes. `asking`: a poll is under way. */
export type Memory = {
  intent: Intent;
  key: string | null;
  asking: boolean;
  runs: readonly LiveRun[];
  spool: readonly RunId[];
};

/** Why a run has to stop, and how long its processes get; null is the job's own grace. `leaseLost`: another runner may have the job. */
export type StopOrder = { reason: Reason; graceMs: number | null; leaseLost: boolean };

/**
 * What a result says. `seen`: what the supervisor wrote; `lost`: the supervisor was killed; `not-begun`: it could not even wait;
 * `given-back`: the runner leaves, or came too late for it.
 */
export type End = "seen" | "lost" | "not-begun" | "given-back";

/**
 * What is to be done, as data. The effects of one step are carried out in their order, and those of the next step after them; `poll`,
 * `heartbeat`, `prepare`, `attach` and `deliver` are begun then, and answer later by an input. Each of the first six is one write that is on the
 * disk when it is done, so that a crash comes before it or after it. When such a write is refused, the rest of its step is left out and
 * `write refused` is the next input.
 */
export type Effect =
  | { do: "store key"; key: string }
  | { do: "forget key" }
  | { do: "store run"; record: RunRecord }
  | { do: "forget run"; run: RunId }
  | { do: "spool"; run: RunId; end: End }
  | { do: "unspool"; run: RunId }
  /** Asks for work. `last`: without waiting, to get hold of an answer that may be on its way. */
  | { do: "poll"; key: string; busy: number; last: boolean }
  /** The first one acknowledges the assignment; later ones wait at the broker for a command. */
  | { do: "heartbeat"; run: RunId; first: boolean; seenCommand: number }
  /** Gets a supervisor that waits. It ends by itself when the runner ends before it was told to begin. */
  | { do: "prepare"; run: RunId }
  | { do: "begin"; run: RunId }
  /** Follows a supervisor that an earlier process of this runner told to begin. */
  | { do: "attach"; run: RunId; supervisor: Supervisor }
  /** Tells the supervisor until when the lease is held: at that time of the machine's monotonic clock, ms, it ends the work by itself. */
  | { do: "renew"; run: RunId; untilMs: number }
  | { do: "stop"; run: RunId; order: StopOrder }
  /** Ends a supervisor and all that is left of its run, without a grace. */
  | { do: "kill"; run: RunId; supervisor: Supervisor | null }
  | { do: "deliver"; run: RunId }
  /** Removes the workspace and, for a run without a result, everything else that it left. */
  | { do: "discard"; run: RunId };

/** What has happened. */
export type Input =
  /** There is room for a run. `freshKey` is used when no key is. */
  | { type: "work wanted"; freshKey: string }
  | { type: "poll answered"; key: string; run: RunId | null }
  | { type: "poll failed"; key: string; last: boolean }
  | { type: "supervisor ready"; run: RunId; supervisor: Supervisor }
  /** `untilMs` counts from when the heartbeat was sent. */
  | { type: "heartbeat accepted"; run: RunId; untilMs: number; command: Command | null }
  | { type: "heartbeat refused"; run: RunId; detail: string }
  | { type: "heartbeat failed"; run: RunId }
  /** The lease, or the time to acknowledge it, is over by the monotonic clock. */
  | { type: "lease ended"; run: RunId }
  /** `seen`: it wrote how the run ended. */
  | { type: "supervisor ended"; run: RunId; seen: boolean }
  /** It goes on long after its grace. */
  | { type: "stop overdue"; run: RunId }
  | { type: "result kept"; run: RunId }
  /** The broker's answer to a result; one that is not final will be asked for again. */
  | { type: "result answered"; run: RunId; final: boolean }
  | { type: "write refused"; effect: Effect }
  /** The runs go back to the queue; the runner stays. */
  | { type: "told to end the runs" }
  /** First: no new work. Second: runs are ended. Third: leave now. */
  | { type: "told to stop" }
  /** Leave now, and let the runs go on. */
  | { type: "told to leave the runs" };

/** A decision: the memory after it, and what is to be done. */
export type Decided = { memory: Memory; effects: readonly Effect[] };

/** The disk after an effect; others than writes leave it as it is. */
export function written(disk: Disk, effect: Effect): Disk {
  switch (effect.do) {
    case "store key":
      return { ...disk, key: effect.key };
    case "forget key":
      return { ...disk, key: null };
    case "store run":
      return { ...disk, runs: [...disk.runs.filter(({ run }) => run !== effect.record.run), effect.record] };
    case "forget run":
      return { ...disk, runs: disk.runs.filter(({ run }) => run !== effect.run) };
    case "spool":
      return disk.spool.includes(effect.run) ? disk : { ...disk, spool: [...disk.spool, effect.run] };
    case "unspool":
      return { ...disk, spool: disk.spool.filter((run) => run !== effect.run) };
    default:
      return disk;
  }
}

/** Whether a runner that leaves has nothing left to wait for; what is in the spool waits for its next start. */
export function mayLeave({ intent, asking, runs }: Memory): boolean {
  return intent === "leave" || (intent !== "work" && !asking && runs.length === 0);
}
