import {
  describeDivergence,
  eligibleSigners,
  isSettled,
  type JobId,
  LIMITS,
  type Millis,
  quorumPolicy,
  type Reason,
  type Refusal,
  refuse,
  type TrustBasis,
  type VerdictView,
} from "@plumule/protocol";
import {
  attemptsOf,
  backoffMs,
  type Brief,
  type Job,
  liveRuns,
  lossCount,
  type Moment,
  type QuorumRecord,
  type Run,
  type State,
  timeoutsOf,
} from "./model.ts";
import { isReplicated, openCount, refOf, type Replicated, takersOf, votes } from "./replicas.ts";
import { endRun } from "./run-records.ts";
import { withdraw } from "./tickets.ts";
import type { Cause } from "./edges.ts";
import { type Decided, reason, Work } from "./work.ts";

/** What a new job knows of its quorum; nothing for one without. */
export function newQuorum(brief: Brief, basis: TrustBasis | null, now: Millis): { quorum?: QuorumRecord } {
  if (brief.quorum === undefined) return {};
  if (basis === null) throw new Error("a job with a quorum was submitted without the policy that its votes count by");
  return {
    quorum: { basis, renewal: renewalAfter(0, now), tieBreakCount: 0, closed: false, verdict: null, conclusion: null },
  };
}

/** First and longest time after which a namespace is asked again who may take what is missing, ms: somebody may have added a signer. */
const RENEW_MS = 10_000;
const RENEW_MAX_MS = 600_000;

function renewalAfter(count: number, now: Millis): QuorumRecord["renewal"] {
  return { at: now + Math.min(RENEW_MS * 2 ** count, RENEW_MAX_MS), count };
}

/** Jobs that wait for replicas under a policy that may have changed, and when the namespace is to be asked. */
export function renewals({ jobs }: State): { job: Job; dueAt: Millis }[] {
  return jobs.flatMap((job) =>
    isReplicated(job) && job.ticket !== null ? [{ job, dueAt: job.quorum.renewal.at }] : [],
  );
}

/** The namespace has answered, or could not be asked (null). Where others may take the missing replicas now, they are offered anew. */
export function renew(
  state: State,
  { job: id, basis }: { job: JobId; basis: TrustBasis | null },
  moment: Moment,
): Decided<null> {
  const work = new Work(state, moment);
  const job = work.find(id);
  if (job === undefined || !isReplicated(job)) return work.done(null);
  const renewal = renewalAfter(job.quorum.renewal.count + 1, work.now);
  const renewed = work.put({ ...job, quorum: { ...job.quorum, renewal, basis: basis ?? job.quorum.basis } });
  if (JSON.stringify(takersOf(renewed, work.lane)) !== JSON.stringify(takersOf(job, work.lane)))
    withdraw(work, renewed);
  return work.done(null);
}

/** Why the quorum of a job could never be reached under a policy, or null. */
export function quorumFault(brief: Brief, basis: TrustBasis | null): Refusal | null {
  if (brief.quorum === undefined || basis === null) return null;
  const { replicas } = brief.quorum;
  const policy = quorumPolicy(basis, refOf(brief), brief.quorum);
  const needed = policy.rules[0]?.require.k ?? 0;
  const next = "Read the trust policy: GET …/trust.";
  if (needed > replicas)
    return refuse(
      "invalid-body",
      `The quorum is too small for ${refOf(brief) === "" ? "the trust policy" : refOf(brief)}.`,
      {
        errors: [{ pointer: "/quorum/replicas", detail: `${replicas}, but the trust policy asks for ${needed} votes` }],
        next,
      },
    );
  const voters = new Set(eligibleSigners(policy, Date.parse(basis.at)).map(({ operator }) => operator)).size;
  // Runners that register later count too, as long as nobody put a policy.
  if (basis.isDefault || voters >= needed) return null;
  return refuse("invalid-body", "The trust policy does not name enough keys for this quorum.", {
    errors: [{ pointer: "/quorum/agree", detail: `${needed} independent votes needed, the policy has ${voters}` }],
    next,
  });
}

/** A vote was heard, with what all of them come to now. The job goes on, is settled, or waits for one more replica to break a tie. */
export function countVotes(work: Work, job: Job, heard: { basis: TrustBasis; verdict: VerdictView }): void {
  if (!isReplicated(job)) return;
  const told = work.put({ ...job, quorum: { ...job.quorum, ...heard, renewal: renewalAfter(0, work.now) } });
  work.tell("job.verdict", told, { verdict: shortened(heard.verdict) });
  settle(work, told, null);
}

/** Outputs that differ as an event carries them; all of them stand in the job. */
function shortened(verdict: VerdictView): VerdictView {
  return { ...verdict, differing: verdict.differing.slice(0, 4) };
}

/**
 * A replica was lost or refused, and the job has others, or votes: the place is open again after a rest, away from that runner, or for good when
 * too many were lost.
 */
export function replaceReplica(work: Work, job: Job, why: Reason): void {
  if (!isReplicated(job)) return;
  const losses = lossCount(job);
  const closed = job.quorum.closed || losses >= attemptsOf(job.brief);
  const next = work.put({
    ...job,
    queueUntil: work.now + timeoutsOf(job.brief).queueMs,
    ready: closed ? null : { at: work.now + backoffMs(losses), reason: "backoff" },
    quorum: { ...job.quorum, closed },
  });
  settle(work, next, why);
}

/** No runner came for the replicas that are missing: the others decide alone. */
export function closeQuorum(work: Work, job: Job, why: Reason): void {
  if (isReplicated(job)) settle(work, work.put({ ...job, ready: null, quorum: { ...job.quorum, closed: true } }), why);
}

/** Whether enough is known to end the job. `why`: what happened last, in case that nobody says anything any more. */
function settle(work: Work, job: Job, why: Reason | null): void {
  if (!isReplicated(job) || job.ending !== null || job.quorum.conclusion !== null) return;
  const { verdict, tieBreakCount, closed } = job.quorum;
  if (verdict !== null && (isSettled(verdict) || verdict.verdict === "expired")) return conclude(work, job, why);
  const agreeing = verdict?.agreeing ?? 0;
  const missing = Math.max(1, (verdict?.needed ?? job.brief.quorum.agree) - agreeing);
  const coming = liveRuns(job).length + openCount(job);
  if (coming >= missing) return;
  const tieBreaks = Math.min(missing - coming, LIMITS.quorumTieBreaks - tieBreakCount);
  if (closed || verdict?.diverging !== true || tieBreaks < missing - coming) return conclude(work, job, why);
  work.put({
    ...job,
    queueUntil: work.now + timeoutsOf(job.brief).queueMs,
    quorum: { ...job.quorum, tieBreakCount: tieBreakCount + tieBreaks },
  });
}

/** Decides how the job ends, and stops the replicas that are not needed any more; it ends when the last of them has stopped. */
function conclude(work: Work, job: Replicated, why: Reason | null): void {
  const outcome = outcomeOf(job, why);
  work.nextEpoch();
  const { graceMs } = timeoutsOf(job.brief);
  const stopped = stopReplicas(
    work,
    work.put({
      ...job,
      ready: null,
      quorum: { ...job.quorum, conclusion: { ...outcome, until: work.now + graceMs + LIMITS.leaseMs } },
      command: {
        number: (job.command?.number ?? 0) + 1,
        kind: "cancel",
        reason: reason("cancelled", "The quorum is settled without this replica."),
        graceMs,
        force: false,
      },
    }),
    reason("cancelled", "The quorum was settled before this replica began."),
  );
  endStopped(work, stopped, "concluded");
}

/** Ends a job that is being stopped, or whose quorum is settled, once none of its runs is alive. */
export function endStopped(work: Work, job: Job, cause: Cause): void {
  if (liveRuns(job).length > 0) return;
  const conclusion = job.quorum?.conclusion ?? null;
  if (job.ending !== null) work.move(job, cause, job.ending.state, { reason: job.ending.reason });
  else if (conclusion !== null) work.move(job, "concluded", conclusion.state, { reason: conclusion.reason });
}

function outcomeOf(
  job: Replicated,
  why: Reason | null,
): { state: "succeeded" | "failed" | "skipped"; reason: Reason | null } {
  const { verdict } = job.quorum;
  if (verdict?.verdict === "agreed") return { state: "succeeded", reason: null };
  const heard = votes(job);
  if (verdict === null || heard.length === 0)
    return { state: "failed", reason: why ?? reason("runner-lost", "No replica brought a result.") };
  if (verdict.diverging)
    return {
      state: "failed",
      reason: {
        ...reason("not-deterministic", `diverged: ${describeDivergence(verdict) || verdict.detail}`),
        verdict: "diverged",
      },
    };
  if (heard.every(({ vote }) => vote === "skipped")) return { state: "skipped", reason: heard.at(-1)?.reason ?? null };
  const own = heard.every(({ vote }) => vote !== "succeeded") ? (heard.at(-1)?.reason ?? null) : null;
  if (own !== null) return { state: "failed", reason: own };
  const rest = why === null ? "" : ` ${why.detail}`;
  return {
    state: "failed",
    reason: { ...reason("rejected", `${verdict.verdict}: ${verdict.detail}.${rest}`), verdict: verdict.verdict },
  };
}

/** Takes back the ticket for missing replicas, and the leases that were not acknowledged: nothing runs there yet, and a late first heartbeat has an old epoch. */
export function stopReplicas(work: Work, job: Job, why: Reason): Job {
  const runs = job.runs.map((run): Run => (run.state === "assigned" ? endRun(work, run, "cancelled", why) : run));
  return withdraw(work, work.put({ ...job, runs }));
}
