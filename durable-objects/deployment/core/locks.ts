import { LIMITS, type JobId, type LockName, type LockWait, type Millis } from "@plumule/protocol";
import { type Job, type Lane, type LockRequest, occupant, type Released, type State } from "./model.ts";
import { nextInLine } from "./turns.ts";
import type { Work } from "./work.ts";

/** When the alarm says what a broken instance did not, ms: after the call that is made at once has failed by itself. */
const HEAL_MS = 8_000;

/** Whether a job names locks that it does not hold. */
export function lacksLocks({ brief, locks }: Job): boolean {
  return brief.locks !== undefined && locks?.heldAt == null;
}

/** The lock that a job waits for: as its namespace said last. */
export function lockWaitOf({ brief, locks }: Job): LockWait {
  return locks?.wait ?? { name: brief.locks?.[0] ?? "", ahead: 0 };
}

/** Whose turn it is in a lane, and so the only job that may have asked for locks: the one that has the lane, else the first that waits. */
export function turnIn(jobs: readonly Job[]): Job | null {
  return occupant(jobs) ?? nextInLine(jobs);
}

/**
 * Keeps requests true: the job whose turn it is asks for its locks, and keeps them until it ends, also while it waits for another attempt. A job that
 * is overtaken, by one that was approved late, gives its own up: else the two could wait for each other.
 */
export function settleLocks(work: Work): void {
  const first = turnIn(work.jobs);
  for (const job of work.jobs) if (job.locks !== undefined && job.id !== first?.id) work.put(giveBack(work, job));
  if (first?.brief.locks === undefined || first.locks !== undefined) return;
  if (first.ready !== null && first.ready.at > work.now) return;
  const request = { number: work.lane.epoch, heldAt: null, wait: null, dueAt: work.now + HEAL_MS, tryCount: 0 };
  work.put({ ...first, locks: request });
}

/** A job without its locks, which are given back. The epoch moves on, so that a later request of the same job is another one. */
export function giveBack(work: Work, job: Job): Job {
  if (job.locks === undefined) return job;
  const { locks: _locks, ...rest } = job;
  work.lane = { ...withReleases(work.lane, [job], work.now), epoch: work.lane.epoch + 1 };
  return rest;
}

/** The lane that has to give back the locks of these jobs. Beyond the limit the oldest word is left unsaid: the namespace asks when others want the lock. */
export function withReleases(lane: Lane, jobs: readonly Job[], now: Millis): Lane {
  const added = jobs.flatMap(({ id, locks }): Released[] =>
    locks === undefined ? [] : [{ job: id, number: locks.number, dueAt: now + HEAL_MS, tryCount: 0 }],
  );
  return added.length === 0 ? lane : { ...lane, releases: [...lane.releases, ...added].slice(-LIMITS.lockReleases) };
}

/** Whether a job, live or not, still wants what it has asked for under this number; what it does not it never will again. */
export function isWanted(job: Job | null, number: number): boolean {
  return job?.locks?.number === number;
}

/** What the namespace has to be told of locks. `dueAt`: when the alarm sees to it. A `fresh` word was not said yet, and is said at once. */
export type LockWord = {
  released: readonly Released[];
  wanted: { job: JobId; number: number; locks: LockName[] } | null;
  dueAt: Millis;
  fresh: boolean;
};

/** All that the namespace has to be told, and asked; null when nothing is. */
export function lockWord({ lane: { releases }, jobs }: State): LockWord | null {
  const waiting = requestOf(jobs.length === 0 ? null : turnIn(jobs));
  const owed = [...releases, ...(waiting === null ? [] : [waiting.request])];
  if (owed.length === 0) return null;
  return {
    released: releases,
    wanted: waiting?.wanted ?? null,
    dueAt: Math.min(...owed.map(({ dueAt }) => dueAt)),
    fresh: owed.some(({ tryCount }) => tryCount === 0),
  };
}

function requestOf(job: Job | null): { request: LockRequest; wanted: NonNullable<LockWord["wanted"]> } | null {
  if (job?.locks === undefined || job.locks.heldAt !== null || job.brief.locks === undefined) return null;
  return { request: job.locks, wanted: { job: job.id, number: job.locks.number, locks: job.brief.locks } };
}
