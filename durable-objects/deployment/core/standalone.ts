import {
  attemptOfRun,
  formatTime,
  jobCreatedAt,
  type JobId,
  type JobState,
  type JobWork,
  LIMITS,
  type Millis,
  type Outcome,
  refuse,
  type Refusal,
  type ResultBody,
  type RunId,
  type RunnerId,
  type RunState,
  type RunView,
} from "@plumule/protocol";
import { interrupt } from "./cancel.ts";
import { revoke } from "./lease.ts";
import {
  type Brief,
  isOccupying,
  type Job,
  type Lane,
  type Run,
  type State,
  timeoutsOf,
  type Moment,
} from "./model.ts";
import { tellRun } from "./run-records.ts";
import { outputsForEvent } from "./views.ts";
import { type Decided, reason, Work } from "./work.ts";

/** A run that its runner gave itself, as it was sent: the ids that it made, and what was signed. */
export type Standalone = {
  job: JobId;
  run: RunId;
  runner: RunnerId;
  brief: Brief;
  taskSha256: string;
  configurationSha256: string | null;
  result: ResultBody;
};

/** `job` is what stands for the work now: this run's, or the one whose result came first. */
export type Recorded = { recorded: boolean; job: Job };

/** How far ahead a runner's clock may be, ms; ids that lie further ahead would come after jobs that are still to be made. */
const AHEAD_MS = 60_000;

const STATES: Readonly<Record<Outcome, { job: JobState; run: RunState }>> = {
  succeeded: { job: "succeeded", run: "succeeded" },
  skipped: { job: "skipped", run: "succeeded" },
  failed: { job: "failed", run: "failed" },
  cancelled: { job: "cancelled", run: "cancelled" },
  // Neither is sent: they say nothing about the work.
  refused: { job: "failed", run: "failed" },
  unknown: { job: "failed", run: "lost" },
};

/** The job and the run as they will be kept. Nobody gave a lease: the run's number is below zero, where no epoch is, and names its log. */
export function standaloneJob({ lane }: State, input: Standalone, startedAt: Millis): { job: Job; run: Run } {
  const { brief, result, runner } = input;
  const createdAt = jobCreatedAt(input.job);
  const finishedAt = Date.parse(result.finishedAt);
  const { job: state, run: runState } = STATES[result.outcome];
  const run: Run = {
    id: input.run,
    attempt: attemptOfRun(input.run),
    epoch: -(lane.standaloneCount + 1),
    state: runState,
    phase: null,
    runner,
    requestKey: "",
    leaseSha256: "",
    undelivered: null,
    isolation: result.isolation,
    assignedAt: createdAt,
    startedAt,
    finishedAt,
    leaseUntil: finishedAt,
    reportNumber: 0,
    reportedAt: null,
    progressAt: 0,
    progressUntold: false,
    derivationCharacters: 0,
    exitCode: result.exitCode,
    reason: result.reason,
    survivorsKilled: result.survivorsKilled,
    ...(result.redactions === undefined ? {} : { redactions: result.redactions }),
    log: { state: "truncated", bytes: 0, sha256: null },
    statementCount: result.statements.length,
  };
  const job: Job = {
    id: input.job,
    state,
    phase: null,
    brief,
    taskSha256: input.taskSha256,
    configurationSha256: input.configurationSha256,
    teardown: false,
    actor: runner,
    createdAt,
    startedAt,
    finishedAt,
    queuedAt: createdAt,
    queueUntil: createdAt + timeoutsOf(brief).queueMs,
    ready: null,
    burstAt: null,
    runs: [run],
    avoid: [],
    ticket: null,
    waiting: null,
    progress: null,
    reason: result.reason,
    supersededBy: null,
    rerunOf: null,
    ending: null,
    command: null,
    standalone: true,
  };
  return { job, run };
}

/**
 * Records such a run as a job that has ended, beside whatever the lane does: it holds no lease (P1) and moves neither what is live nor the revision.
 * Whoever's result comes first has the work. `known` is a job that has done it already; jobs that were still to do it are superseded, unless one
 * has begun to apply.
 */
export function recordStandalone(
  state: State,
  { job, known, log, outputs }: { job: Job; known: Job | null; log: RunView["log"]; outputs: ResultBody["outputs"] },
  moment: Moment,
): Decided<Recorded> | Refusal {
  const { lane } = state;
  if (lane.removedAt !== null) return refuse("gone", `Deployment ${lane.deployment} was removed.`);
  const [made] = job.runs;
  if (made === undefined || job.createdAt > moment.now + AHEAD_MS)
    return refuse("conflict", `Job ${job.id} is of ${formatTime(job.createdAt)}, which has not come yet.`, {
      next: "Set the clock of the runner's machine.",
    });
  const work = new Work(state, moment);
  if (known !== null) return work.done({ recorded: false, job: known });
  const why = reason("superseded", `Job ${job.id} has done this work: its runner did it without the broker.`);
  for (const other of work.jobs) {
    if (!isSameWork(other, job)) continue;
    if (!isOccupying(other))
      work.move(revoke(work, other, why), "replaced", "superseded", { reason: why, supersededBy: job.id });
    else {
      const how = { cause: "replaced", state: "superseded", how: "before-apply", why, supersededBy: job.id } as const;
      // Refused and not half done: what was decided here is dropped with this scratch copy.
      if (!interrupt(work, other, how) && other.ending === null)
        return new Work(state, moment).done({ recorded: false, job: other });
    }
  }
  const run: Run = { ...made, epoch: -(lane.standaloneCount + 1), log };
  const ended: Job = { ...job, runs: [run] };
  work.lane = laneWith(work.lane, ended, moment.now);
  work.record(ended);
  tellRun(work, "run.finished", ended, run, outputsForEvent(outputs));
  return work.done({ recorded: true, job: ended });
}

function laneWith(lane: Lane, { createdAt }: Job, now: Millis): Lane {
  return {
    ...lane,
    standaloneCount: lane.standaloneCount + 1,
    createdAt: lane.createdAt ?? now,
    lastJobAt: Math.max(lane.lastJobAt, createdAt),
    unsweptCount: lane.unsweptCount + 1,
    sweepAt: lane.sweepAt ?? now + LIMITS.idempotencyMs,
  };
}

/** Whether two jobs are the same work, and either alone may do it: not where several runners have to agree, and not for strangers. */
export function isSameWork(one: Job, other: Job): boolean {
  const [work, otherWork] = [workOf(one), workOf(other)];
  return (
    work !== null &&
    otherWork !== null &&
    one.brief.quorum === undefined &&
    one.brief.stranger === undefined &&
    !one.teardown &&
    work.repository === otherWork.repository &&
    work.commit === otherWork.commit &&
    work.taskSha256 === otherWork.taskSha256 &&
    work.configurationSha256 === otherWork.configurationSha256
  );
}

/** What a job's identity is made of; null for one that is about no commit. */
export function workOf({ brief: { source }, taskSha256, configurationSha256 }: Job): JobWork | null {
  if (source === undefined) return null;
  return { repository: source.repository, commit: source.commit, taskSha256, configurationSha256 };
}

/** Whether a job's result is one of the work, whoever did it. */
export function hasDone({ state }: Job): boolean {
  return state === "succeeded" || state === "failed" || state === "skipped";
}
