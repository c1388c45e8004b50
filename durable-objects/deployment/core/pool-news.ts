import { LIMITS, type JobId, type Waiting } from "@plumule/protocol";
import { backoffMs, type Moment, type State } from "./model.ts";
import { type Dispatch, offerable } from "./tickets.ts";
import { type Decided, Work } from "./work.ts";

/** Pools say why tickets wait. Told to watchers only when the reason, what is needed or the nearest runner changed. */
export function noteWaiting(
  state: State,
  changes: readonly { job: JobId; waiting: Waiting }[],
  moment: Moment,
): Decided<null> {
  const work = new Work(state, moment);
  for (const { job, waiting } of changes) note(work, job, waiting);
  return work.done(null);
}

/** What became of a message to a pool: delivered, perhaps with the reason why the job waits, or to be tried again. */
export type Sent = { dispatch: Dispatch; delivered: boolean; waiting: Waiting | null };

/** A pool answered, or it could not be reached and is tried again later. A message that is no longer wanted changes nothing. */
export function noteSent(state: State, { dispatch, delivered, waiting }: Sent, moment: Moment): Decided<null> {
  const work = new Work(state, moment);
  if (dispatch.kind === "drop") {
    const drops = work.lane.drops.flatMap((drop) => {
      if (drop.job !== dispatch.job || drop.number !== dispatch.number) return [drop];
      const tryCount = drop.tryCount + 1;
      // A ticket that stays does no harm: its claim is answered null. So the list of drops is bounded.
      return delivered || tryCount >= LIMITS.outboxAttempts ? [] : [{ ...drop, ...later(tryCount, work.now) }];
    });
    work.lane = { ...work.lane, drops };
    return work.done(null);
  }
  const job = work.find(dispatch.ticket.job);
  if (job?.ticket?.number !== dispatch.ticket.number) return work.done(null);
  const { ticket } = job;
  work.put({
    ...job,
    ticket: delivered ? { ...ticket, placed: true } : { ...ticket, ...later(ticket.tryCount + 1, work.now) },
  });
  if (waiting !== null) note(work, job.id, waiting);
  return work.done(null);
}

function later(tryCount: number, now: number): { tryCount: number; dueAt: number } {
  return { tryCount, dueAt: now + backoffMs(tryCount) };
}

function note(work: Work, id: JobId, waiting: Waiting): void {
  const job = offerable(work.jobs, work.now);
  if (job?.id !== id || (job.waiting !== null && gist(job.waiting) === gist(waiting))) return;
  work.tell("job.waiting", work.put({ ...job, waiting }));
}

/** What makes two reasons different for a reader; a moving estimate or position in the pool does not. */
function gist({ reason, needs, nearest }: Waiting): string {
  return JSON.stringify([reason, needs, nearest]);
}
