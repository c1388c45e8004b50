import type { JobId, Millis, PoolName } from "@plumule/protocol";
import type { Ticket as PoolTicket } from "../../pool/calls.ts";
import { lacksLocks } from "./locks.ts";
import { type Drop, type Job, type Lane, occupant, poolOf, type State } from "./model.ts";
import { nextInLine } from "./turns.ts";
import { openCount, takersOf } from "./replicas.ts";
import type { Work } from "./work.ts";

/**
 * A message that a pool has to get. A `fresh` one was never sent: it goes out right after its commit, and no claim for its ticket can be on
 * its way yet. `dueAt` is when the alarm sees to it.
 */
export type Dispatch =
  | { kind: "put"; pool: PoolName; ticket: PoolTicket; dueAt: Millis; fresh: boolean }
  | { kind: "drop"; pool: PoolName; job: JobId; number: number; dueAt: Millis; fresh: boolean };

/** When the alarm sends what a broken instance did not, ms after its commit. */
const HEAL_MS = 5_000;

/**
 * The job that may be given to a runner now: the first in the queue, when the lane is free, nothing holds it back and it holds its locks; or the one that
 * has the lane, while its quorum lacks replicas.
 */
export function offerable(jobs: readonly Job[], now: Millis): Job | null {
  const busy = occupant(jobs);
  const head = busy === null ? nextInLine(jobs) : openCount(busy) > 0 ? busy : null;
  return head === null || lacksLocks(head) || (head.ready !== null && head.ready.at > now) ? null : head;
}

/** The ticket that offers a job, as its pool stores it. */
export function poolTicket(lane: Pick<Lane, "deployment" | "stateKeeper">, job: Job, number: number): PoolTicket {
  const { requires = {}, protocol, priority = "normal" } = job.brief;
  const { runners, except } = takersOf(job, lane);
  return {
    deployment: lane.deployment,
    job: job.id,
    number,
    priority,
    needs: {
      ...requires,
      ...(protocol === undefined ? {} : { protocol }),
      ...(runners === null ? {} : { runners }),
      ...(except.length === 0 ? {} : { except }),
    },
    queuedAt: job.queuedAt,
    avoid: job.avoid,
  };
}

/**
 * Keeps tickets true: the offerable job has one, no other job has. A withdrawn ticket takes its number with it, so that a late
 * `drop` cannot take out a ticket that is put again.
 */
export function settleTickets(work: Work): void {
  const head = offerable(work.jobs, work.now);
  for (const job of work.jobs) if (job.ticket !== null && job.id !== head?.id) withdraw(work, job);
  if (head === null || head.ticket !== null) return;
  work.put({
    ...head,
    ready: null,
    ticket: { number: work.lane.epoch, placed: false, dueAt: work.now + HEAL_MS, tryCount: 0 },
  });
}

/** Takes a job's ticket back. A ticket that was never sent may have arrived all the same, so its pool is told too. */
export function withdraw(work: Work, job: Job): Job {
  if (job.ticket === null) return job;
  const drop: Drop = {
    job: job.id,
    pool: poolOf(job.brief),
    number: job.ticket.number,
    dueAt: work.now + HEAL_MS,
    tryCount: 0,
  };
  work.lane = { ...work.lane, epoch: work.lane.epoch + 1, drops: [...work.lane.drops, drop] };
  return work.put({ ...job, ticket: null });
}

/** Everything that pools have still to be told, due or not. */
export function dispatches({ lane, jobs }: State): Dispatch[] {
  const puts = jobs.flatMap((job): Dispatch[] =>
    job.ticket === null || job.ticket.placed
      ? []
      : [
          {
            kind: "put",
            pool: poolOf(job.brief),
            ticket: poolTicket(lane, job, job.ticket.number),
            dueAt: job.ticket.dueAt,
            fresh: job.ticket.tryCount === 0,
          },
        ],
  );
  const drops = lane.drops.map(({ job, pool, number, dueAt, tryCount }): Dispatch => ({
    kind: "drop",
    pool,
    job,
    number,
    dueAt,
    fresh: tryCount === 0,
  }));
  return [...drops, ...puts];
}
