import { LIMITS, refuse, type Command, type Interrupt, type JobId, type Reason, type Refusal } from "@plumule/protocol";
import type { Cause } from "./edges.ts";
import { revoke } from "./lease.ts";
import { type ApprovedBy, type Ending, type Job, liveRuns, type Moment, type State, timeoutsOf } from "./model.ts";
import { stopReplicas } from "./quorum.ts";
import { checkRevision } from "./revision.ts";
import { type Decided, reason, Work } from "./work.ts";

/** How a job that has the lane is stopped, and what it becomes. */
export type Interruption = {
  cause: Cause;
  state: Ending["state"];
  how: Interrupt;
  why: Reason;
  supersededBy: JobId | null;
};

/**
 * Stops the job that has the lane: at once while nothing runs, else by a command to its runner; then it ends when the runner reports, or
 * when the lease ends. False when it may not be stopped, or is being stopped already.
 */
export function interrupt(work: Work, job: Job, { cause, state, how, why, supersededBy }: Interruption): boolean {
  if (how === "never" || (how === "before-apply" && job.phase === "applying") || job.state === "cancelling")
    return false;
  if (job.state === "assigned") {
    work.move(revoke(work, job, why), cause, state === "superseded" ? state : "cancelled", {
      reason: why,
      supersededBy,
    });
    return true;
  }
  work.nextEpoch();
  const left = stopReplicas(work, job, why);
  if (liveRuns(left).length === 0) work.move(left, cause, state, { reason: why, supersededBy });
  else
    work.move(left, cause, "cancelling", {
      ...stopping(work, left, state, why, timeoutsOf(job.brief).graceMs, false),
      supersededBy,
    });
  return true;
}

/** The command to the runner, and the deadline after which its silence no longer matters. */
function stopping(
  work: Work,
  job: Job,
  state: Ending["state"],
  why: Reason,
  graceMs: number,
  force: boolean,
): Pick<Job, "ending" | "command"> {
  const command: Command = { number: (job.command?.number ?? 0) + 1, kind: "cancel", reason: why, graceMs, force };
  return { ending: { state, reason: why, until: work.now + graceMs + LIMITS.leaseMs }, command };
}

/** Which jobs to cancel: one, with the steps that its task file became, or all that are not final. `force` kills without grace, and stops even a job that applies. */
export type Cancellation = { job: JobId | null; force: boolean; why: Reason; ifMatch: string | null };

/** Cancels; the answer names the jobs that ended or are ending. A job that is not here has ended before: its caller knows that. */
export function cancel(state: State, input: Cancellation, moment: Moment): Decided<JobId[]> | Refusal {
  const mismatch = checkRevision(state, input.ifMatch);
  if (mismatch !== null) return mismatch;
  const work = new Work(state, moment);
  const { why, force } = input;
  const chosen = work.jobs.filter(
    (job) => input.job === null || job.id === input.job || job.step?.parent === input.job,
  );
  const applying = chosen.find((job) => job.phase === "applying" && job.state === "running");
  if (applying !== undefined && !force)
    return refuse("in-apply-phase", `Job ${applying.id} is applying; stopping it may leave its work half done.`);
  for (const job of chosen) {
    if (job.state === "held" || job.state === "queued")
      work.move(revoke(work, job, why), "cancelled", "cancelled", { reason: why });
    else if (job.state === "cancelling") insist(work, job, force);
    else if (
      interrupt(work, job, { cause: "cancelled", state: "cancelled", how: "always", why, supersededBy: null }) &&
      force
    )
      insist(work, work.find(job.id) ?? job, force);
  }
  if (chosen.length > 0) work.revise();
  return work.done(chosen.map((job) => job.id));
}

/** A job that is being stopped is told to stop without grace. */
function insist(work: Work, job: Job, force: boolean): void {
  if (!force || job.state !== "cancelling" || job.ending === null || job.command?.force === true) return;
  work.put({ ...job, ...stopping(work, job, job.ending.state, job.ending.reason, 0, true) });
}

/**
 * Lets a held job into the queue. With `commit`, only if the job is about that commit: an approval is for what was looked at. A stranger's job
 * needs `approved`, whose signature was verified; one that has made a plan, the SHA-256 of exactly that.
 */
export function approve(
  state: State,
  input: { job: JobId; commit: string | null; approved?: ApprovedBy | null; plan?: string | null },
  moment: Moment,
): Decided<Job> | Refusal {
  const work = new Work(state, moment);
  const job = work.find(input.job);
  if (job === undefined || job.state !== "held")
    return refuse("wrong-state", `Job ${input.job} is not held${job === undefined ? "" : `, it is ${job.state}`}.`);
  const commit = job.brief.source?.commit ?? null;
  if (input.commit !== null && input.commit !== commit)
    return refuse("conflict", `Job ${job.id} is about commit ${commit ?? "none"}, not ${input.commit}.`);
  const fault = planFault(job, input.plan ?? null);
  if (fault !== null) return fault;
  const { stranger } = job.brief;
  const approved = input.approved ?? null;
  if (stranger !== undefined && approved === null)
    return refuse("forbidden", `${stranger.why}: a delegate has to approve the job with a Radicle key.`, {
      next: `plumule approve ${job.id} --key FILE; it may be approved by ${stranger.approvers.join(", ")}.`,
    });
  work.revise();
  return work.done(
    work.move(job, "approved", "queued", {
      ...(stranger === undefined || approved === null
        ? {}
        : { brief: { ...job.brief, stranger: { ...stranger, approved } } }),
      ...(job.plan === undefined ? {} : { plan: { ...job.plan, approved: { actor: moment.actor, at: work.now } } }),
      phase: "queued",
      queuedAt: work.now,
      queueUntil: work.now + timeoutsOf(job.brief).queueMs,
    }),
  );
}

/** Why an approval is not one of the job's plan, or null. */
function planFault({ id, plan }: Job, sha256: string | null): Refusal | null {
  if (plan === undefined) return sha256 === null ? null : refuse("conflict", `Job ${id} has made no plan yet.`);
  if (plan.sha256 === sha256) return null;
  const but = sha256 === null ? "and an approval has to name it" : `not ${sha256}`;
  return refuse("conflict", `The plan of job ${id} is ${plan.sha256}, ${but}.`, {
    next: `Read it: plumule get ${id}. Then: plumule approve ${id} --plan ${plan.sha256}`,
  });
}

/** A person says how a job ended whose effects nobody saw. The job is final, so its record comes from outside the state. */
export function resolve(
  state: State,
  input: { job: Job; outcome: "succeeded" | "failed" | "cancelled"; detail: string },
  moment: Moment,
): Decided<Job> | Refusal {
  if (input.job.state !== "unknown")
    return refuse("wrong-state", `Job ${input.job.id} is ${input.job.state}, not unknown.`);
  const work = new Work(state, moment);
  return work.done(work.move(input.job, "resolved", input.outcome, { reason: reason("resolved", input.detail) }));
}
