import { LIMITS, type JobId, type Millis } from "@plumule/protocol";
import { backoffMs, type Lane, type State, type Unsigned } from "./model.ts";
import type { Decided } from "./work.ts";

/** How long the instance that ended a job has to sign its verdict before the alarm sees to it, ms. */
const HEAL_MS = 5_000;

/** The list of verdicts to sign with these jobs in it, each once; beyond the limit the oldest is given up. */
export function withUnsigned(lane: Lane, jobs: readonly JobId[], now: Millis): readonly Unsigned[] {
  const known = new Set(lane.unsigned.map(({ job }) => job));
  const added = jobs.filter((job) => !known.has(job)).map((job) => ({ job, dueAt: now + HEAL_MS, tryCount: 0 }));
  return added.length === 0 ? lane.unsigned : [...lane.unsigned, ...added].slice(-LIMITS.unsignedVerdicts);
}

/** A verdict was signed, or cannot be; one that could not be signed just now is tried again later, for as long as anything is. */
export function noteSigned(state: State, { job, signed }: { job: JobId; signed: boolean }, now: Millis): Decided<null> {
  const unsigned = state.lane.unsigned.flatMap((one): Unsigned[] => {
    if (one.job !== job) return [one];
    const tryCount = one.tryCount + 1;
    return signed ? [] : [{ job, tryCount, dueAt: now + backoffMs(Math.min(tryCount, 16)) }];
  });
  return { state: { ...state, lane: { ...state.lane, unsigned } }, jobs: [], events: [], answer: null };
}
