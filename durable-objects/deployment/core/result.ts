import {
  decideQuorum,
  type IsolationLevel,
  type JobId,
  type JobState,
  type Outcome,
  type Output as BuildOutput,
  type Reason,
  type Refusal,
  type RunChanges,
  type RunnerEvent,
  type RunState,
  type RunView,
  type SignedClaims,
  type StatedSchedule,
  type SubmitBody,
  type TrustBasis,
} from "@plumule/protocol";
import { expand, type StepDraft } from "./expansion.ts";
import { acknowledge, type LeaseProof, provenLease, requeue, retryElsewhere } from "./lease.ts";
import {
  attemptsOf,
  isPlanOpen,
  type Job,
  lossCount,
  type Moment,
  type Run,
  type State,
  timeoutsOf,
  type Vote,
} from "./model.ts";
import { countVotes, endStopped } from "./quorum.ts";
import { isReplicated, isStopping, refOf } from "./replicas.ts";
import { apply, type DerivationBatch, tellDerivations } from "./report.ts";
import { tellRun, withRun } from "./run-records.ts";
import { outputsForEvent } from "./views.ts";
import { takeSchedules } from "./schedules.ts";
import { type Decided, reason, Work } from "./work.ts";

/** A result whose statement was verified, with the state of the log that it was compared with. */
export type Reported = LeaseProof & {
  outcome: Outcome;
  exitCode: number | null;
  reason: Reason | null;
  isolation: IsolationLevel | null;
  survivorsKilled: number;
  redactions?: Readonly<Record<string, number>> | undefined;
  changes?: RunChanges | undefined;
  outputs: readonly BuildOutput[];
  statementCount: number;
  log: RunView["log"];
  events: { number: number; events: readonly RunnerEvent[] } | null;
  /** The SHA-256 of the plan that the statement names. */
  plan?: string | null;
  /** The schedules that the statement names; missing for a run that says nothing about them. */
  schedules?: readonly StatedSchedule[] | undefined;
  /** What the task file asks for that the statement says, where it becomes jobs of the lane. */
  steps?: readonly StepDraft[];
  /** With a quorum: whose votes count, and every statement that is one, this result's among them. */
  ballot?: Ballot | null;
};

/** The votes of a quorum, verified, with the policy that they count by. */
export type Ballot = { basis: TrustBasis; statements: readonly SignedClaims[] };

/** What a result came to: the state of the job after it, what is to be kept of its events, and the bodies of jobs that were queued with it. */
export type Finished = { state: JobState; batch: DerivationBatch | null; queued: { job: JobId; spec: SubmitBody }[] };

const RUN_STATES: Readonly<Record<Outcome, RunState>> = {
  succeeded: "succeeded",
  skipped: "succeeded",
  failed: "failed",
  refused: "failed",
  cancelled: "cancelled",
  unknown: "lost",
};

/** Ends a run, and with it its job, or sends the job back to the queue. */
export function finish(state: State, input: Reported, moment: Moment): Decided<Finished> | Refusal {
  const work = new Work(state, moment);
  const proven = provenLease(work.jobs, input);
  if ("refused" in proven) return proven;
  const leased = acknowledge(work, proven);
  const applied =
    input.events === null || input.events.number <= leased.run.reportNumber ? null : apply(work, leased, input.events);
  if (applied !== null && "refused" in applied) return applied;
  const { job, run } = applied ?? leased;
  if (applied !== null) tellDerivations(work, job, applied.derivations);
  const ended: Run = {
    ...run,
    state: RUN_STATES[input.outcome],
    phase: null,
    finishedAt: work.now,
    progressUntold: false,
    exitCode: input.exitCode,
    reason: input.reason,
    isolation: input.isolation ?? run.isolation,
    survivorsKilled: input.survivorsKilled,
    ...(input.redactions === undefined ? {} : { redactions: input.redactions }),
    ...(input.changes === undefined ? {} : { changes: input.changes }),
    log: input.log,
    statementCount: input.statementCount,
    ...voteOf(job, input),
  };
  const done = work.put(withRun(job, ended));
  tellRun(work, "run.finished", done, ended, outputsForEvent(input.outputs));
  const queued = conclude(work, done, ended, input);
  return work.done({ state: work.stateOf(job.id), batch: applied?.batch ?? null, queued });
}

/**
 * What becomes of the job. One that was being stopped is stopped, whatever its runner says (P4); only an effect whose end nobody saw stays
 * unknown. A runner that refused the job or was stopped itself says nothing about the job: it is tried elsewhere, unless it had begun to
 * apply.
 */
function conclude(work: Work, job: Job, run: Run, input: Reported): Finished["queued"] {
  const { outcome, reason: why, ballot, steps = [] } = input;
  const nothing = saysNothing(input);
  if (!isReplicated(job) && (outcome === "unknown" || (nothing && job.phase === "applying")))
    work.move(job, "reported", "unknown", { reason: why });
  else if (isStopping(job)) endStopped(work, job, "reported");
  else if (ballot != null && run.vote !== undefined) {
    const { basis, statements } = ballot;
    const { brief } = job;
    if (brief.quorum === undefined) return [];
    countVotes(work, job, { basis, verdict: decideQuorum(basis, refOf(brief), brief.quorum, statements, work.now) });
  } else if (input.plan != null && outcome === "skipped" && isPlanOpen(job)) hold(work, job, run, input.plan);
  else if (nothing || outcome === "refused" || isReplicated(job))
    retryElsewhere(work, job, run, "refused", why ?? reason("refused", "The runner refused the job."));
  else if (outcome === "failed" && job.brief.retry?.onFailure === true)
    requeue(work, job, "reported", why ?? reason("exit-code", "The job failed."));
  else {
    const isWell = outcome === "succeeded" || outcome === "skipped";
    if (isWell && input.schedules !== undefined) takeSchedules(work, job, input.schedules, steps.length > 0);
    if (outcome === "succeeded" && steps.length > 0) return expand(work, job, steps);
    work.move(job, "reported", outcome, { reason: why });
  }
  return [];
}

/** The plan is made. Others may have the lane until somebody has approved it. */
function hold(work: Work, job: Job, { id }: Run, sha256: string): void {
  work.move(job, "planned", "held", {
    phase: null,
    plan: { sha256, run: id, approved: null },
    progress: null,
    reason: null,
    queuedAt: work.now,
    queueUntil: work.now + timeoutsOf(job.brief).queueMs,
  });
}

function saysNothing({ outcome, reason: why }: Pick<Reported, "outcome" | "reason">): boolean {
  return outcome === "refused" || (outcome === "cancelled" && why?.code === "runner-stopped");
}

/** What a result counts as in the job's quorum, if it has one. */
export function voteOf(job: Job, { outcome }: Pick<Reported, "outcome">): { vote?: Vote } {
  if (!isReplicated(job)) return {};
  if (outcome === "failed" && job.brief.retry?.onFailure === true && lossCount(job) + 1 < attemptsOf(job.brief))
    return {};
  return outcome === "succeeded" || outcome === "failed" || outcome === "skipped" ? { vote: outcome } : {};
}
