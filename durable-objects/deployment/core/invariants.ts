import type { JobId, Millis } from "@plumule/protocol";
import { lacksLocks, turnIn } from "./locks.ts";
import { isOccupying, type Job, type Lane, liveRuns, type Run, runLimitOf, type State } from "./model.ts";
import { isUnmet } from "./needs.ts";
import { needAmong } from "./turns.ts";
import { isReplicated, openCount, votes } from "./replicas.ts";
import { offerable } from "./tickets.ts";
import { timersOf } from "./timers.ts";
import { isFinal } from "./views.ts";
import type { Change } from "./work.ts";

/**
 * The rule that a decision breaks, as a sentence that begins with the promise, or null. Asked before every commit, also in production: a
 * fault of this code then costs one request instead of the truth. Only what the decision touched is looked at, so that it stays cheap, and
 * a lane that somehow is wrong already can still be put right.
 */
export function brokenRule(before: State, { state, jobs, events }: Change, now: Millis): string | null {
  const broken = brokenLane(before.lane, state);
  if (broken !== null || jobs.length === 0) return broken;
  const told = new Set(events.map(({ type, subject }) => `${subject} ${type}`));
  for (const job of jobs) {
    if (recordOf(state.jobs, job.id) !== (isFinal(job) ? null : job))
      return `P2 a job is live or final: what is stored of job ${job.id} is not what is decided on`;
    const was = recordOf(before.jobs, job.id);
    const rule =
      brokenEnd(before.lane, state.lane, was, job) ??
      brokenRuns(before, state, was, job) ??
      brokenLocks(state, was, job) ??
      brokenNeeds(state, job) ??
      brokenTimers(job);
    if (rule !== null) return rule;
    if (was?.state !== job.state && !told.has(`jobs/${job.id} job.${job.state}`))
      return `P6 every change is told: nobody hears that job ${job.id} is ${job.state}`;
  }
  return brokenTickets(state, now);
}

/** The record of a job. Ids of a lane sort by submission, and a lane may have many jobs. */
function recordOf(jobs: readonly Job[], id: JobId): Job | null {
  let [low, high] = [0, jobs.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((jobs[middle]?.id ?? "") < id) low = middle + 1;
    else high = middle;
  }
  const found = jobs[low];
  return found?.id === id ? found : null;
}

function brokenLane(before: Lane, { lane, jobs }: State): string | null {
  if (lane.epoch < before.epoch) return `P5 epochs never shrink: ${before.epoch} becomes ${lane.epoch}`;
  if (lane.revision < before.revision) return `P5 revisions never shrink: ${before.revision} becomes ${lane.revision}`;
  if (lane.removedAt !== null && jobs.length > 0)
    return "P6 what was removed stays removed: it has a job that is not final";
  if (lane.removedAt === null && before.removedAt !== null) return "P6 what was removed stays removed: it is back";
  return null;
}

/** Records of jobs that have ended are not in the state, so a job that is neither there nor newer than all of them has ended. */
function brokenEnd(before: Lane, lane: Lane, was: Job | null, job: Job): string | null {
  if (was === null && !isFinal(job) && job.createdAt <= before.lastJobAt)
    return `P6 final states absorb: job ${job.id} is ${job.state} again`;
  if (was?.state === "cancelling" && job.state !== was.ending?.state && !["cancelling", "unknown"].includes(job.state))
    return `P4 what is being stopped is stopped: job ${job.id} becomes ${job.state}`;
  if (
    was?.quorum?.conclusion != null &&
    isFinal(job) &&
    !ENDS_OF_SETTLED.has(job.state) &&
    job.state !== was.quorum.conclusion.state
  )
    return `P6 a settled quorum stays settled: job ${job.id} becomes ${job.state}`;
  if (job.state === "cancelling" && was?.state !== "cancelling" && lane.epoch === before.epoch)
    return `P5 an interruption is a new epoch: job ${job.id} is being stopped in epoch ${lane.epoch}`;
  if ((job.state === "cancelling") !== (job.ending !== null))
    return `P15 a stop has a deadline: job ${job.id} is ${job.state}, its ending is ${job.ending?.state ?? "open"}`;
  return null;
}

function brokenRuns(before: State, { lane, jobs }: State, was: Job | null, job: Job): string | null {
  const runsBefore = was?.runs.length ?? (isFinal(job) ? job.runs.length : 0);
  const isGranted = job.runs.length > runsBefore;
  const run = job.runs.at(-1);
  if (
    job.runs.length < runsBefore ||
    job.runs.length > runsBefore + 1 ||
    (isGranted && job.runs.length > runLimitOf(job))
  )
    return `P6 attempts are counted: job ${job.id} has ${job.runs.length} runs, had ${runsBefore}`;
  if (isGranted && run !== undefined && run.epoch <= before.lane.epoch)
    return `P5 every grant has a higher epoch: run ${run.id} has ${run.epoch} after ${before.lane.epoch}`;
  if (run !== undefined && run.epoch > lane.epoch)
    return `P5 no lease is ahead of its lane: run ${run.id} has ${run.epoch}, the lane ${lane.epoch}`;
  const changed = job.runs.find((one, index) => !isSameLease(was?.runs[index] ?? one, one));
  if (changed !== undefined) return `P5 a lease stays what it was: run ${changed.id} has another token or epoch`;
  return brokenLeases(job) ?? brokenOccupation(was, job, jobs);
}

/** One lease, or with a quorum as many as it has replicas, of different runners; a quorum that lacks replicas may wait without any. */
function brokenLeases(job: Job): string | null {
  const live = liveRuns(job);
  const waits = isOccupying(job) && openCount(job) > 0;
  if (isOccupying(job) ? live.length === 0 && !waits : live.length > 0)
    return `P1 a lease lives as long as its job has the lane: job ${job.id} is ${job.state}`;
  const parts = [...live, ...votes(job)];
  const most = (job.brief.quorum?.replicas ?? 1) + (job.quorum?.tieBreakCount ?? 0);
  if (live.length > 1 && (!isReplicated(job) || parts.length > most))
    return `P1 a job has one lease, or one per replica: job ${job.id} has ${live.length}`;
  const runners = new Set(
    job.runs.filter((run) => run.finishedAt === null || run.vote !== undefined).map(({ runner }) => runner),
  );
  return runners.size === new Set([...live, ...votes(job)]).size
    ? null
    : `P10 each replica is another runner's: job ${job.id} has ${runners.size} of them`;
}

function brokenOccupation(was: Job | null, job: Job, jobs: readonly Job[]): string | null {
  const other =
    isOccupying(job) && (was === null || !isOccupying(was))
      ? jobs.find((one) => one !== job && isOccupying(one))
      : undefined;
  return other === undefined ? null : `P1 one job has the lane: jobs ${other.id} and ${job.id} have it`;
}

/** What a person may still make of a job whose quorum is settled while its last replicas stop. */
const ENDS_OF_SETTLED: ReadonlySet<string> = new Set(["cancelled", "superseded"]);

function isSameLease(a: Run, b: Run): boolean {
  return a.id === b.id && a.epoch === b.epoch && a.leaseSha256 === b.leaseSha256 && a.runner === b.runner;
}

/** Who works holds its locks, who is not first asks for none, and what somebody had or asked for is given back. */
function brokenLocks({ lane, jobs }: State, was: Job | null, job: Job): string | null {
  if (isOccupying(job) && lacksLocks(job))
    return `P1 a lock has one job: job ${job.id} is ${job.state} without its locks`;
  if (job.locks !== undefined && (isFinal(job) ? job.state !== "unknown" : turnIn(jobs)?.id !== job.id))
    return `P6 locks are for whose turn it is: job ${job.id}, which is ${job.state}, keeps its request`;
  const request = was?.locks;
  const isOwed = lane.releases.some((one) => one.job === job.id && one.number === request?.number);
  return request === undefined || job.locks?.number === request.number || isOwed
    ? null
    : `P6 locks are given back: the namespace is not told that job ${job.id} wants none`;
}

/** A step begins when all that it needs has ended well, and none waits for what cannot come any more. */
function brokenNeeds({ jobs }: State, job: Job): string | null {
  if (job.step === undefined) return null;
  const need = isOccupying(job) ? needAmong(jobs, job) : undefined;
  if (need !== undefined)
    return `P1 a step comes after its needs: job ${job.id} is ${job.state}, and job ${need.id} is ${need.state}`;
  const left = isUnmet(job) ? jobs.find((other) => needAmong([job], other) !== undefined) : undefined;
  return left === undefined
    ? null
    : `P6 what cannot come is skipped: job ${left.id} is ${left.state}, and job ${job.id}, which it needs, is ${job.state}`;
}

function brokenTimers(job: Job): string | null {
  if (isFinal(job)) return null;
  const timers = timersOf(job, null);
  return timers.length > 0 && timers.every(({ at }) => Number.isFinite(at))
    ? null
    : `P13 every job has a timer: nothing ends job ${job.id}, which is ${job.state}`;
}

function brokenTickets({ jobs }: State, now: Millis): string | null {
  const head = offerable(jobs, now);
  const stray = jobs.find((job) => job.ticket !== null && job !== head);
  if (stray !== undefined)
    return `P1 only the head of the queue has a ticket: job ${stray.id}, which is ${stray.state}, has one`;
  return head === null || head.ticket !== null
    ? null
    : `P13 the head of the queue has a ticket: job ${head.id} has none`;
}
