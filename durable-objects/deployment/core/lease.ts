import {
  LIMITS,
  refuse,
  runIdOf,
  type Command,
  type IsolationLevel,
  type JobId,
  type Millis,
  type Reason,
  type Refusal,
  type RunId,
  type RunnerId,
} from "@plumule/protocol";
import type { Cause } from "./edges.ts";
import {
  attemptsOf,
  backoffMs,
  type Job,
  type LeaseOffer,
  liveRuns,
  lossCount,
  type Moment,
  type Run,
  type State,
  timeoutsOf,
} from "./model.ts";
import { endStopped, replaceReplica, stopReplicas } from "./quorum.ts";
import { isReplicated, isStopping, mayTake, votes } from "./replicas.ts";
import { endRun, tellRun, withRun } from "./run-records.ts";
import { offerable, withdraw } from "./tickets.ts";
import { type Decided, reason, Work } from "./work.ts";

/** A job with the run that holds its lease. */
export type Leased = { job: Job; run: Run };

/**
 * A pool asks for a ticket's job. Null for a ticket that is stale: the job has ended, is not first, or was given to another. The same
 * `requestKey` gets the same lease as long as the run was not acknowledged, so that a lost answer starts nothing twice.
 */
export function claim(
  state: State,
  input: { job: JobId; ticket: number; lease: LeaseOffer },
  moment: Moment,
): Decided<Leased | null> {
  const work = new Work(state, moment);
  const job = work.find(input.job);
  const { requestKey, runner } = input.lease;
  const known = job === undefined ? [] : liveRuns(job);
  const given = known.find((run) => run.state === "assigned" && run.requestKey === requestKey && run.runner === runner);
  if (job !== undefined && given !== undefined) return work.done({ job, run: given });
  if (job === undefined || offerable(work.jobs, work.now)?.id !== job.id || job.ticket?.number !== input.ticket)
    return work.done(null);
  if (!mayTake(job, work.lane, runner)) {
    // Its pool knew no better, or the policy has changed. The pool drops the ticket now, so another one follows, but not at once.
    work.put({ ...job, ticket: null, ready: { at: work.now + backoffMs(1), reason: "backoff" } });
    return work.done(null);
  }
  return work.done(grant(work, { ...job, ticket: null }, input.lease));
}

/** The fast path for a job that waits: its pool has set a runner aside. Null when the job is no longer the one to offer. */
export function grantReserved(
  state: State,
  input: { job: JobId; lease: LeaseOffer },
  moment: Moment,
): Decided<Leased | null> {
  const work = new Work(state, moment);
  const job = offerable(work.jobs, work.now);
  // A ticket that may have reached the pool is left to its claim.
  if (job?.id !== input.job || job.ticket === null || job.ticket.placed || job.ticket.tryCount > 0)
    return work.done(null);
  if (!mayTake(job, work.lane, input.lease.runner)) return work.done(null);
  return work.done(grant(work, { ...job, ticket: null }, input.lease));
}

/** Gives the lease of a queued job: the one place where a run is born. */
export function grant(work: Work, job: Job, lease: LeaseOffer): Leased {
  const attempt = job.runs.length + 1;
  const run: Run = {
    id: runIdOf(job.id, attempt),
    attempt,
    epoch: work.nextEpoch(),
    state: "assigned",
    phase: null,
    runner: lease.runner,
    requestKey: lease.requestKey,
    leaseSha256: lease.leaseSha256,
    undelivered: lease.leaseToken,
    isolation: null,
    assignedAt: work.now,
    startedAt: null,
    finishedAt: null,
    leaseUntil: work.now + timeoutsOf(job.brief).acknowledgeMs,
    reportNumber: 0,
    reportedAt: null,
    progressAt: 0,
    progressUntold: false,
    derivationCharacters: 0,
    exitCode: null,
    reason: null,
    survivorsKilled: null,
    log: { state: "open", bytes: 0, sha256: null },
    statementCount: 0,
  };
  const changes = { ready: null, waiting: null, runs: [...job.runs, run] };
  if (job.state === "queued")
    return { job: work.move(job, "granted", "assigned", { phase: "assigned", ...changes }), run };
  const joined = work.put({ ...job, ...changes, queueUntil: work.now + timeoutsOf(job.brief).queueMs });
  tellRun(work, "run.assigned", joined, run);
  return { job: joined, run };
}

/** What a runner shows with every write: the run, the digest of its token, and the epoch that it was given. */
export type LeaseProof = { run: RunId; leaseSha256: string; epoch: number };

/** The job and run that a write may touch, or `stale-lease`: another token, another epoch, or a lease that has ended (P5). */
export function provenLease(jobs: readonly Job[], proof: LeaseProof): Leased | Refusal {
  for (const job of jobs) {
    const run = liveRuns(job).find(({ id }) => id === proof.run);
    if (run?.leaseSha256 === proof.leaseSha256 && run.epoch === proof.epoch) return { job, run };
  }
  return refuse("stale-lease", `Run ${proof.run} has no live lease with this token and epoch ${proof.epoch}.`);
}

/** What the holder of a lease is told: when it ends, and a command that is newer than the last one seen. */
export type Beat = { leaseUntil: Millis; command: Command | null };

/** Reads a lease without keeping it. */
export function liveLease(jobs: readonly Job[], proof: LeaseProof, seenCommand: number): Beat | Refusal {
  const leased = provenLease(jobs, proof);
  if ("refused" in leased) return leased;
  const { command } = leased.job;
  return {
    leaseUntil: leased.run.leaseUntil,
    command: command !== null && command.number > seenCommand ? command : null,
  };
}

/**
 * Keeps a lease; the first heartbeat acknowledges the assignment. The lease of a job that is being stopped is kept no longer than
 * its ending allows, so that a runner that never reports cannot hold the lane (P15).
 */
export function heartbeat(
  state: State,
  input: LeaseProof & { isolation: IsolationLevel | null },
  moment: Moment,
): Decided<{ first: boolean }> | Refusal {
  const work = new Work(state, moment);
  const leased = provenLease(work.jobs, input);
  if ("refused" in leased) return leased;
  const { job, run } = acknowledge(work, leased);
  const until = job.ending?.until ?? job.quorum?.conclusion?.until ?? Number.POSITIVE_INFINITY;
  const leaseUntil = Math.min(work.now + LIMITS.leaseMs, until);
  work.put(withRun(job, { ...run, leaseUntil, isolation: input.isolation ?? run.isolation }));
  return work.done({ first: leased.run.state === "assigned" });
}

/** Makes an assigned run a running one; a running one stays as it is. */
export function acknowledge(work: Work, { job, run }: Leased): Leased {
  if (run.state !== "assigned") return { job, run };
  const running: Run = {
    ...run,
    state: "running",
    phase: "setup",
    startedAt: work.now,
    undelivered: null,
    leaseUntil: work.now + LIMITS.leaseMs,
  };
  const acknowledged = withRun(job, running);
  if (job.state !== "assigned") {
    tellRun(work, "run.running", work.put(acknowledged), running);
    return { job: acknowledged, run: running };
  }
  const started = work.move(acknowledged, "acknowledged", "running", {
    phase: "setup",
    startedAt: job.startedAt ?? work.now,
  });
  return { job: started, run: running };
}

/**
 * Takes an unacknowledged lease away when somebody stops the job: nothing runs yet, and if the runner's first heartbeat is on its way,
 * the new epoch refuses it.
 */
export function revoke(work: Work, job: Job, why: Reason): Job {
  const live = liveRuns(job);
  if (live.length === 0) return withdraw(work, job);
  work.nextEpoch();
  return stopReplicas(work, job, why);
}

/**
 * The lease has ended without a result. A run that was not acknowledged, or had not begun to apply, is tried again elsewhere; one that
 * may have changed the world is `unknown` and left to a person; a job that was being stopped is stopped.
 */
export function expire(work: Work, job: Job, run: Run, why: Reason = lapse(run)): void {
  work.nextEpoch();
  const ended = endRun(work, run, "lost", why);
  const lost = work.put(withRun(job, ended));
  tellRun(work, "run.lost", lost, ended);
  if (job.phase === "applying") work.move(lost, "lease expired", "unknown", { reason: why });
  else if (isStopping(job)) endStopped(work, lost, "lease expired");
  else retryElsewhere(work, lost, run, job.state === "assigned" ? "acknowledgement expired" : "lease expired", why);
}

function lapse({ id, state }: Run): Reason {
  return state === "assigned"
    ? reason("not-acknowledged", `The runner did not acknowledge run ${id} in time.`)
    : reason("runner-lost", `The lease of run ${id} ended without a result.`);
}

/**
 * Takes every lease away from a runner that was revoked, as if it had ended now: the job goes on elsewhere, and what the runner still writes is
 * refused by its epoch (P5).
 */
export function dismiss(state: State, runner: RunnerId, moment: Moment): Decided<null> {
  const work = new Work(state, moment);
  for (const job of work.jobs)
    for (const run of liveRuns(job))
      if (run.runner === runner)
        expire(work, job, run, reason("runner-lost", `The runner of run ${run.id} was revoked.`));
  return work.done(null);
}

/** Puts a job back into the queue after an infrastructure failure, away from the runner that it met, or fails it when its attempts are used up. */
export function retryElsewhere(work: Work, job: Job, { runner }: Run, cause: Cause, why: Reason): void {
  requeue(work, { ...job, avoid: job.avoid.includes(runner) ? job.avoid : [...job.avoid, runner] }, cause, why);
}

/**
 * Puts a job back into the queue with a backoff, or fails it when its attempts are used up. A job of several replicas stays where it is as long
 * as others are alive or have voted.
 */
export function requeue(work: Work, job: Job, cause: Cause, why: Reason): void {
  if (isReplicated(job) && (liveRuns(job).length > 0 || votes(job).length > 0)) {
    replaceReplica(work, job, why);
    return;
  }
  const losses = lossCount(job);
  if (losses >= attemptsOf(job.brief)) {
    work.move(job, cause, "failed", { reason: why });
    return;
  }
  work.move(job, cause, "queued", {
    phase: "queued",
    reason: why,
    progress: null,
    queuedAt: work.now,
    queueUntil: work.now + timeoutsOf(job.brief).queueMs,
    ready: { at: work.now + backoffMs(losses), reason: "backoff" },
  });
}
