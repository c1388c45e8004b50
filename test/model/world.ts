import {
  LIMITS,
  makeJobId,
  type JobId,
  type JobState,
  type Outcome,
  type Reason,
  type RunId,
  type RunnerId,
} from "@plumule/protocol";
import type { Job, LeaseOffer, Moment, Run, State } from "#durable-objects/deployment/core/model.ts";
import { emptyState } from "#durable-objects/deployment/core/model.ts";
import type { LeaseProof } from "#durable-objects/deployment/core/lease.ts";
import type { Submission } from "#durable-objects/deployment/core/submit.ts";
import type { Ticket } from "#durable-objects/pool/calls.ts";
import { type Disk, type Effect, EMPTY_DISK, type Memory } from "../../runner/src/core/model.ts";
import type { Scope } from "./scopes.ts";

/** The moment at which everything happens: time is relative, and each timer may fire at any step (see `rebase`). */
export const NOW = Date.UTC(2026, 0, 1);

/** What a runner was given: the lease of one run. `runner` is its holder in the broker's view. */
export type Lease = LeaseProof & { job: JobId; runner: RunnerId };

/** A result in a runner's spool. `applied`: its run had begun to apply, and names a later phase with its result. */
export type Result = {
  lease: Lease;
  outcome: Outcome;
  content: Content;
  reason: Reason | null;
  applied: boolean;
  batch: Batch;
  logBytes: number;
};

/** The numbered batches of a run's reports: how many were taken for sure, and the event of the next one that was sent without an answer. */
export type Batch = { takenCount: number; pending: "applying" | "progress" | null };

/** What a run says that it built: the truth, or something else. */
export type Content = "true" | "false";

/** A vote of a quorum as it is stored: whose, about which job, and what it says. */
export type Said = { job: JobId; lease: Lease; outcome: Outcome; content: Content };

/**
 * The supervisor of a run, with the work under it: it outlives its runner once it was told to begin. `ended`: it wrote how the run ended, which
 * is `outcome`. `ordered`: it was told to stop.
 */
export type Process = {
  run: RunId;
  pid: number;
  state: "waiting" | "working" | "ended" | "killed";
  applying: boolean;
  ordered: boolean;
  outcome: Outcome | null;
  content: Content;
  logBytes: number;
  batch: Batch;
};

/** What a runner began and has no answer to. */
export type Going = Extract<Effect, { do: "poll" | "heartbeat" | "prepare" | "deliver" }>;

/**
 * A runner with one slot, on a machine of its own. `memory` is null while its process is down. `leases` and `results` are what the files of the
 * journal and the spool hold besides the names in `disk`. `reply` is an assignment on its way to it; `nameCount` numbers its keys and processes.
 */
export type RunnerModel = {
  id: RunnerId;
  nameCount: number;
  disk: Disk;
  memory: Memory | null;
  going: readonly Going[];
  processes: readonly Process[];
  leases: readonly Lease[];
  results: readonly Result[];
  reply: Lease | null;
  /** Bytes of its run's log that it knows the broker to have. */
  sentBytes: number;
};

/** A parked poll, or what was set aside for it. */
export type PollModel = { runner: RunnerId; key: string };

/** A claim of a pool that is under way. */
export type ClaimModel = { runner: RunnerId; key: string; job: JobId; number: number };

/** A pool: `tickets` and `known` runners are stored, everything else is lost with an eviction. */
export type PoolModel = {
  tickets: readonly Ticket[];
  known: readonly RunnerId[];
  polls: readonly PollModel[];
  claims: readonly ClaimModel[];
  reservations: readonly PollModel[];
  deliveries: readonly { runner: RunnerId; key: string; lease: Lease }[];
};

/** A call of the deployment that is under way, in its memory. */
export type Call =
  | { kind: "reserved"; job: JobId; poll: PollModel }
  | { kind: "put"; job: JobId; number: number }
  /** A submit that waits for its pool, with the head of the event log when it was planned. */
  | { kind: "submit"; submission: Submission; poll: PollModel; head: number };

/** A copy of a message that the network still has: it arrives late, or never. */
export type Late =
  | { kind: "heartbeat"; lease: Lease }
  | { kind: "report"; lease: Lease; number: number; event: "applying" | "progress" }
  | { kind: "log"; lease: Lease; offset: number; length: number }
  | { kind: "result"; result: Result }
  | { kind: "put"; ticket: Ticket }
  | { kind: "drop"; job: JobId; number: number };

/** What watchers were told of a job, for the properties that speak of the past. */
export type Told = {
  state: JobState | null;
  finalCount: number;
  stopped: boolean;
  /** A run began to apply, and nobody has reported how that ended. */
  unseen: boolean;
};

/** A state of the whole system. Values are never changed, a step makes new ones. */
export type World = {
  state: State;
  /** The state before the newest commit: what only a broken store would bring back. */
  before: State;
  told: readonly Told[];
  grantedEpoch: number;
  /** The votes about jobs that are not final. */
  said: readonly Said[];
  /** The logs of runs that are live. */
  logs: readonly { epoch: number; bytes: number }[];
  /** Jobs that ended as unknown, for a person to resolve; null where nobody does. */
  unknown: readonly Job[] | null;
  /** The one runner that has told something false. */
  liar: RunnerId | null;
  /** Number of the newest event, as it is stored; watchers have heard all of them. */
  head: number;
  pool: PoolModel;
  runners: readonly RunnerModel[];
  calls: readonly Call[];
  late: readonly Late[];
  submittedCount: number;
  peopleCount: number;
};

/** Nothing has happened. */
export function emptyWorld({ runnerCount, people }: Pick<Scope, "runnerCount" | "people">): World {
  const state = emptyState("garden", "web");
  return {
    state,
    before: state,
    told: [],
    grantedEpoch: 0,
    said: [],
    logs: [],
    unknown: people.includes("resolve") ? [] : null,
    liar: null,
    head: 0,
    pool: { tickets: [], known: [], polls: [], claims: [], reservations: [], deliveries: [] },
    runners: Array.from({ length: runnerCount }, (_, index) => ({
      id: `runner-${index}`,
      nameCount: 0,
      disk: EMPTY_DISK,
      memory: { intent: "work" as const, key: null, asking: false, runs: [], spool: [] },
      going: [],
      processes: [],
      leases: [],
      results: [],
      reply: null,
      sentBytes: 0,
    })),
    calls: [],
    late: [],
    submittedCount: 0,
    peopleCount: 0,
  };
}

const IDS: JobId[] = [];
const INDICES = new Map<JobId, number>();

/** The id of the n-th job, from 0: ids of a lane sort by submission. */
export function jobId(index: number): JobId {
  return (IDS[index] ??= makeJobId(NOW + index, new Uint8Array(8)));
}

/** Which job an id names, from 0. */
export function jobIndex(job: JobId): number {
  let index = INDICES.get(job);
  if (index === undefined) {
    index = Number.parseInt(job.slice(0, 8) + job.slice(9, 13), 16) - NOW;
    INDICES.set(job, index);
  }
  return index;
}

/** A moment in the model. `now` is later than `NOW` only for a timer. */
export function moment(now = NOW): Moment {
  return { now, actor: "model", outputs: null };
}

/** A new lease for a poll; its token is as unique as the epoch after which it was made. */
export function leaseOffer({ state }: World, { runner, key }: { runner: RunnerId; key: string }): LeaseOffer {
  const leaseToken = `${key} ${state.lane.epoch}`;
  return { runner, requestKey: key, leaseToken, leaseSha256: leaseToken };
}

/**
 * Takes the clock back to `NOW` after a step: what waits for a time waits again for its whole time. So a timer may fire at any step, early
 * or late and in any order, which is more than any clock does; what holds here holds for every clock.
 */
export function rebase(state: State): State {
  const jobs = state.jobs.map((job) => {
    const { quorum } = job;
    return {
      ...job,
      queueUntil: NOW + LIMITS.queueMs,
      queuedAt: NOW,
      ready: job.ready === null ? null : { ...job.ready, at: NOW + 1_000 },
      burstAt: job.burstAt === null ? null : NOW,
      ending: job.ending === null ? null : { ...job.ending, until: NOW + LIMITS.graceMs + LIMITS.leaseMs },
      ticket: job.ticket === null ? null : { ...job.ticket, dueAt: NOW, tryCount: Math.min(job.ticket.tryCount, 1) },
      runs: job.runs.map((run) => (run.finishedAt === null ? rebaseRun(run) : run)),
      ...(quorum?.conclusion == null
        ? {}
        : {
            quorum: { ...quorum, conclusion: { ...quorum.conclusion, until: NOW + LIMITS.graceMs + LIMITS.leaseMs } },
          }),
    };
  });
  const drops = state.lane.drops.map((drop) => ({ ...drop, dueAt: NOW, tryCount: Math.min(drop.tryCount, 1) }));
  return { lane: { ...state.lane, drops, sweepAt: null }, jobs };
}

function rebaseRun(run: Run): Run {
  return {
    ...run,
    leaseUntil: NOW + LIMITS.leaseMs,
    startedAt: run.startedAt === null ? null : NOW,
    reportedAt: null,
  };
}
