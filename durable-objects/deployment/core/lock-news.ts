import { describeLockWait, type JobId, type LockWait, type Millis } from "@plumule/protocol";
import type { LockWord } from "./locks.ts";
import { backoffMs, type Moment, type State } from "./model.ts";
import { type Decided, Work } from "./work.ts";

/** When a namespace is asked again by who waits, ms at first and at most: it tells by itself, but its word may get lost. */
const ASK_AGAIN_MS = 30_000;
const ASK_AGAIN_MAX_MS = 600_000;

/** How the request of a job stands, as the namespace says. `wait` null: the job holds its locks. */
export type LockNews = { job: JobId; number: number; wait: LockWait | null };

/** A word is said again: until its answer comes it is not due. */
export function noteSaying(state: State, word: LockWord, untilMs: number, moment: Moment): Decided<null> {
  const work = new Work(state, moment);
  putOff(work, word, (owed) => ({ ...owed, dueAt: work.now + untilMs }));
  return work.done(null);
}

/** What became of a word: the namespace took it, with news of what was wanted, or it could not be reached and is told again later. */
export function noteSaid(
  state: State,
  word: LockWord,
  { taken, news }: { taken: boolean; news: LockNews | null },
  moment: Moment,
): Decided<null> {
  const work = new Work(state, moment);
  if (!taken)
    putOff(work, word, (owed) => {
      const tryCount = owed.tryCount + 1;
      return { ...owed, tryCount, dueAt: work.now + backoffMs(Math.min(tryCount, 16)) };
    });
  else if (word.released.length > 0) {
    const said = saidIn(word);
    work.lane = { ...work.lane, releases: work.lane.releases.filter((one) => !said.has(keyOf(one))) };
  }
  if (news !== null) note(work, news);
  return work.done(null);
}

/** The namespace says of itself how a request stands. */
export function noteLocks(state: State, news: LockNews, moment: Moment): Decided<null> {
  const work = new Work(state, moment);
  note(work, news);
  return work.done(null);
}

/**
 * Takes news of a request. Locks that are held stay held until they are given back: word that the job waits was overtaken by a better one. Watchers are not
 * told who is in the way, because not everybody who may watch one deployment may know of another.
 */
function note(work: Work, { job: id, number, wait: told }: LockNews): void {
  const job = work.find(id);
  if (job?.locks === undefined || job.locks.number !== number || job.locks.heldAt !== null) return;
  if (told === null) {
    work.put({ ...job, locks: { ...job.locks, heldAt: work.now, wait: null } });
    return;
  }
  const { holder: _holder, ...wait } = told;
  const isNews = job.locks.wait === null || describeLockWait(job.locks.wait) !== describeLockWait(wait);
  if (!isNews && job.locks.dueAt > work.now) return;
  const tryCount = job.locks.tryCount + 1;
  const restMs = Math.min(ASK_AGAIN_MS * 2 ** Math.min(tryCount - 1, 16), ASK_AGAIN_MAX_MS);
  const waiting = work.put({ ...job, locks: { ...job.locks, wait, tryCount, dueAt: work.now + restMs } });
  if (isNews) work.tell("job.waiting", waiting);
}

type Owed = { dueAt: Millis; tryCount: number };

/** Changes when what is in a word is due again, as far as it is still owed. */
function putOff(work: Work, word: LockWord, change: <One extends Owed>(owed: One) => One): void {
  const said = saidIn(word);
  if (word.released.length > 0)
    work.lane = {
      ...work.lane,
      releases: work.lane.releases.map((one) => (said.has(keyOf(one)) ? change(one) : one)),
    };
  const job = word.wanted === null ? undefined : work.find(word.wanted.job);
  if (job?.locks?.number === word.wanted?.number && job?.locks?.heldAt === null)
    work.put({ ...job, locks: change(job.locks) });
}

function saidIn({ released }: LockWord): Set<string> {
  return new Set(released.map(keyOf));
}

function keyOf({ job, number }: { job: JobId; number: number }): string {
  return `${job} ${number}`;
}
