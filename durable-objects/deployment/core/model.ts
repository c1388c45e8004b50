import {
  LIMITS,
  type Command,
  type DeploymentId,
  type IsolationLevel,
  type JobId,
  type JobState,
  type LockWait,
  type Millis,
  type NamespaceId,
  type Phase,
  type PoolName,
  type Progress,
  type Reason,
  type RunId,
  type RunChanges,
  type RunnerId,
  type RunState,
  type RunView,
  type StatedSchedule,
  type SubmitBody,
  type Task,
  type TrustBasis,
  type VerdictView,
  type Waiting,
  type Envelope,
  type Stranger,
} from "@plumule/protocol";
import type { Actor } from "../calls.ts";

/**
 * What is known of a deployment besides its jobs. A persisted contract: fields may be added with a default, never changed in meaning.
 * `epoch` numbers grants, expiries, withdrawals and interruptions of the whole deployment; a run's epoch therefore also names its log.
 * `revision` counts the decisions (submits, cancels, approvals, ends) that `If-Match` protects; progress does not move it.
 */
export type Lane = {
  namespace: NamespaceId;
  deployment: DeploymentId;
  epoch: number;
  revision: number;
  /** Null until the first job was accepted. */
  createdAt: Millis | null;
  updatedAt: Millis;
  /** When the newest job was made. The next one is made later, even within one millisecond: the time in its id is its place in the lane. */
  lastJobAt: Millis;
  /** The job whose success is live. */
  currentJob: JobId | null;
  lastResult: { job: JobId; state: JobState; at: Millis } | null;
  /** The deployment goes as soon as nothing is left to do: its teardown succeeded, or somebody asked to do without one. */
  removing: boolean;
  removedAt: Millis | null;
  /** Tickets to be taken out of their pools. */
  drops: readonly Drop[];
  /** Sequence of the last event that the namespace was told. */
  published: number;
  /** When retention looks next; null when there is nothing to look for. */
  sweepAt: Millis | null;
  /** Jobs that ended since retention looked. */
  unsweptCount: number;
  /** Jobs about whose verdict the broker has still to sign a statement. */
  unsigned: readonly Unsigned[];
  /** Locks that the namespace has to be given back. */
  releases: readonly Released[];
  /** The runner that keeps state files of this deployment's effects: it alone is given the next one. Null while there are none. */
  stateKeeper: RunnerId | null;
  /** Runs that runners gave themselves and that were recorded here: what their numbers below zero are counted by. */
  standaloneCount: number;
  /** What the clock asks for, as the newest runs of its branches have stated it. */
  schedules: readonly Schedule[];
  /** What task files say of the clock whose steps are at work. */
  awaited: readonly AwaitedSchedules[];
  /** The last successes of steps that build, oldest first, for those that may be skipped because nothing has changed. */
  builtSteps: readonly BuiltStep[];
};

/** The last job of a step and combination of a task file that succeeded: the digest of its task names it. A persisted contract like `Lane`. */
export type BuiltStep = { taskSha256: string; job: JobId };

/** What is to be taken over when all steps of the file that `job` has read have ended well. A persisted contract like `Lane`. */
export type AwaitedSchedules = { job: JobId; repository: string; ref: string; stated: readonly StatedSchedule[] };

/**
 * A schedule. A persisted contract like `Lane`. It repeats what was asked for in `job`, for `repository` and `ref`, whose task file has it under its name, as
 * soon as `dueAt` is there; null while somebody has paused it. `last`: when it was due last, with the job that was made or, in words, why none was.
 */
export type Schedule = {
  name: string;
  cron: string;
  repository: string;
  ref: string;
  job: JobId;
  dueAt: Millis | null;
  last: { at: Millis; job: JobId | null; detail: string | null } | null;
};

/** The bounded part of the truth that decisions see: the lane, and its jobs that are not final, in the order of their submission. */
export type State = { readonly lane: Lane; readonly jobs: readonly Job[] };

/** When and by whom, and what the live runs have logged; null where nobody looked. */
export type Moment = { now: Millis; actor: Actor; outputs: Outputs | null };
/** What a run has logged: bytes, and when the last of them came. */
export type Output = { bytes: number; at: Millis };
/** What runs have logged, by epoch; a run without a byte is not in it. */
export type Outputs = ReadonlyMap<number, Output>;

/**
 * A submit body without its bulk: what decisions and views need. The whole body is stored beside it. `protocol` is the version of the wire that a
 * runner must speak to be given the body, unless any will do; `runners` are those that can open the job's secrets, unless it has none.
 * `stranger` is there for the job of one, who is trusted with nothing, approved or not.
 */
export type Brief = Omit<SubmitBody, "task" | "configuration" | "env" | "secrets" | "limits"> & {
  kind: Task["kind"];
  protocol?: number;
  runners?: readonly RunnerId[];
  stranger?: Stranger & { approved?: ApprovedBy };
  /** An effect whose plan has to be approved before it applies, and one that another runner may take than the keeper of its state. */
  planned?: true;
  movesState?: true;
  /** The schedule of the task file whose jobs are run. */
  schedule?: string;
};

/** Who let a stranger's job start, with the envelope that says so. */
export type ApprovedBy = { approver: RunnerId; at: Millis; envelope: Envelope };

/** A message to a pool that is sent until it was answered. */
export type Outgoing = { number: number; dueAt: Millis; tryCount: number };
export type Ticket = Outgoing & { placed: boolean };
export type Drop = Outgoing & { job: JobId; pool: PoolName };
/** A verdict to be signed, tried until it is. */
export type Unsigned = { job: JobId; dueAt: Millis; tryCount: number };

/** Locks of a job that are given back, sent until the namespace has answered. `number` is that of the request. */
export type Released = { job: JobId; number: number; dueAt: Millis; tryCount: number };

/**
 * What a job has asked of its namespace's locks. A persisted contract like `Lane`. `number` tells a request from an earlier one of the same job; `heldAt` null: it
 * waits, for what `wait` says as soon as that is known, and asks again at `dueAt`.
 */
export type LockRequest = {
  number: number;
  heldAt: Millis | null;
  wait: LockWait | null;
  dueAt: Millis;
  tryCount: number;
};

/** What a job that is being stopped becomes, and when its lease ends at the latest, whatever its runner says (P15). */
export type Ending = { state: "cancelled" | "superseded" | "failed"; reason: Reason; until: Millis };

/** A job. A persisted contract like `Lane`. */
export type Job = {
  id: JobId;
  state: JobState;
  phase: Phase | null;
  brief: Brief;
  taskSha256: string;
  configurationSha256: string | null;
  teardown: boolean;
  actor: Actor;
  createdAt: Millis;
  startedAt: Millis | null;
  finishedAt: Millis | null;
  /** When it last entered the queue (or was held), and when that wait is over for good. */
  queuedAt: Millis;
  queueUntil: Millis;
  /** Not before this: a burst settles, or a retry backs off. */
  ready: { at: Millis; reason: "debounce" | "backoff" } | null;
  /** When the burst began that this job's debounce waits for. */
  burstAt: Millis | null;
  /** All its runs, oldest first. The last one is live while the job is assigned, running or cancelling; with a quorum up to as many as there are replicas, or none. */
  runs: readonly Run[];
  /** Runners that lost or refused it. */
  avoid: readonly RunnerId[];
  ticket: Ticket | null;
  /** What the pool last said about why the job waits. */
  waiting: Waiting | null;
  progress: Progress | null;
  reason: Reason | null;
  supersededBy: JobId | null;
  rerunOf: JobId | null;
  /** Only of a job that a schedule made: the one that it repeats. */
  scheduledBy?: JobId;
  ending: Ending | null;
  command: Command | null;
  /** Only where several runners have to agree. */
  quorum?: QuorumRecord;
  /** Only of a job that names locks: from when its turn has come until it gives them back, which one that ended `unknown` does when that is resolved. */
  locks?: LockRequest;
  /** What a run has said that applying would do, and who has approved exactly that. */
  plan?: PlanRecord;
  /** Only of a step of a task file that the deployment queued itself. */
  step?: StepRecord;
  /** Only of a job whose task file became jobs of the lane: their ids, in their order. */
  steps?: readonly JobId[];
  /** Its runner gave it to itself, without a lease, and it came here when it had ended. */
  standalone?: true;
};

/** Whose step a job is: the job that read the file, its name, the job of the file that it is one combination of, and those jobs whose steps it needs. A persisted contract like `Lane`. */
export type StepRecord = { parent: JobId; name: string; job: string; needs: readonly string[] };

/** A plan by the SHA-256 of its text, which stands in the statement of the run that made it. A persisted contract like `Lane`. */
export type PlanRecord = { sha256: string; run: RunId; approved: { actor: Actor; at: Millis } | null };

/** What is known of a job's quorum. A persisted contract like `Lane`. */
export type QuorumRecord = {
  /** Whose votes count, as the namespace said when the job came, with each vote since, and now and then while replicas are missing. */
  basis: TrustBasis;
  /** When it is asked again while replicas are missing, and how often it was since the last vote. */
  renewal: { at: Millis; count: number };
  /** Replicas added because votes differed. */
  tieBreakCount: number;
  /** Nobody came in time for a replica that is missing, or too many were lost: no more are asked for. */
  closed: boolean;
  /** What the votes came to last; null before the first. */
  verdict: VerdictView | null;
  /** How the job ends as soon as its last replica has stopped, and when their leases end at the latest (P15); null while it is open. */
  conclusion: { state: "succeeded" | "failed" | "skipped"; reason: Reason | null; until: Millis } | null;
};

/** A run. A persisted contract like `Lane`. */
export type Run = {
  id: RunId;
  attempt: number;
  /** Below zero for a run without a lease, which no write can name. */
  epoch: number;
  state: RunState;
  phase: Phase | null;
  runner: RunnerId;
  requestKey: string;
  /** SHA-256 (hex) of the lease token; the token itself is `undelivered` until the first heartbeat proves that it arrived, then gone. */
  leaseSha256: string;
  undelivered: string | null;
  isolation: IsolationLevel | null;
  assignedAt: Millis;
  startedAt: Millis | null;
  finishedAt: Millis | null;
  /** While assigned: when the acknowledgement is overdue. Afterwards: when the lease ends. */
  leaseUntil: Millis;
  /** Highest number of a batch of events that was applied, and when it came. */
  reportNumber: number;
  reportedAt: Millis | null;
  /** When progress was last told to watchers, and whether newer progress is still to be told. */
  progressAt: Millis;
  progressUntold: boolean;
  /** Characters of derivation batches kept. */
  derivationCharacters: number;
  exitCode: number | null;
  reason: Reason | null;
  survivorsKilled: number | null;
  /** How often each secret was masked; missing for a run without secrets. */
  redactions?: Readonly<Record<string, number>>;
  /** What it has changed in its checkout, where its runner said so. */
  changes?: RunChanges;
  log: RunView["log"];
  statementCount: number;
  /** As what its result counts in a quorum; missing for a run that said nothing about the job. */
  vote?: Vote;
};
export type Vote = "succeeded" | "failed" | "skipped";

/** A lease that may be given: who asks, and the token with its digest, made outside because this folder draws no randomness. */
export type LeaseOffer = { runner: RunnerId; requestKey: string; leaseToken: string; leaseSha256: string };

/** A deployment that nobody has submitted to. */
export function emptyState(namespace: NamespaceId, deployment: DeploymentId): State {
  const lane: Lane = {
    namespace,
    deployment,
    epoch: 0,
    revision: 0,
    createdAt: null,
    updatedAt: 0,
    lastJobAt: 0,
    currentJob: null,
    lastResult: null,
    removing: false,
    removedAt: null,
    drops: [],
    published: 0,
    sweepAt: null,
    unsweptCount: 0,
    unsigned: [],
    releases: [],
    stateKeeper: null,
    schedules: [],
    awaited: [],
    builtSteps: [],
    standaloneCount: 0,
  };
  return { lane, jobs: [] };
}

/** The run that holds the lease, or null; of several the newest. */
export function liveRun(job: Job): Run | null {
  return liveRuns(job).at(-1) ?? null;
}

/** The runs that hold leases: more than one only with a quorum. */
export function liveRuns(job: Job): Run[] {
  return job.runs.filter(({ finishedAt }) => finishedAt === null);
}

/** The run that stands for the job where only one can be shown: the newest, or with a quorum the oldest that was not lost. */
export function leadRun(job: Job): Run | null {
  const lead =
    job.quorum === undefined ? undefined : job.runs.find((run) => run.finishedAt === null || run.vote !== undefined);
  return lead ?? job.runs.at(-1) ?? null;
}

/** True for a job that has the lane to itself (P1). */
export function isOccupying(job: Job): boolean {
  return job.state === "assigned" || job.state === "running" || job.state === "cancelling";
}

/** The job that has the lane to itself, or null. */
export function occupant(jobs: readonly Job[]): Job | null {
  return jobs.find(isOccupying) ?? null;
}

/** The time-outs of a job, ms. */
export function timeoutsOf(brief: Brief): {
  queueMs: number;
  acknowledgeMs: number;
  runMs: number;
  silenceMs: number;
  graceMs: number;
} {
  const { queueMs, acknowledgeMs, runMs, silenceMs, graceMs } = brief.timeouts ?? {};
  return {
    queueMs: queueMs ?? LIMITS.queueMs,
    acknowledgeMs: acknowledgeMs ?? LIMITS.acknowledgeMs,
    runMs: runMs ?? LIMITS.runMs,
    silenceMs: silenceMs ?? LIMITS.silenceMs,
    graceMs: graceMs ?? LIMITS.graceMs,
  };
}

/** Runs that infrastructure failures may cost the job. */
export function attemptsOf(brief: Brief): number {
  return brief.retry?.attempts ?? LIMITS.attempts;
}

/** Runs that the job may have in all. */
export function runLimitOf({ brief, quorum, plan }: Job): number {
  const spare = quorum === undefined ? 0 : (brief.quorum?.replicas ?? 1) + quorum.tieBreakCount - 1;
  return attemptsOf(brief) + spare + (plan === undefined ? 0 : 1);
}

/** Runs that are over and said nothing about the job: what its attempts are counted by. One that made its plan has said that. */
export function lossCount({ runs, plan }: Job): number {
  return runs.filter(({ id, finishedAt, vote }) => finishedAt !== null && vote === undefined && id !== plan?.run)
    .length;
}

/** Whether all that a run may do for the job now is to make its plan. */
export function isPlanOpen({ brief, plan }: Job): boolean {
  return brief.planned === true && (plan?.approved ?? null) === null;
}

/** The pool whose runners may take the job. */
export function poolOf(brief: Brief): PoolName {
  return brief.requires?.pool ?? "default";
}

/** Wait before the n-th try (from 1) of something that failed, ms: doubling from one second, at most five minutes. */
export function backoffMs(count: number): number {
  return Math.min(1_000 * 2 ** (count - 1), 300_000);
}
