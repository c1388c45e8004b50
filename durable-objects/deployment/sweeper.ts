import { LIMITS, type Millis } from "@plumule/protocol";
import type { EventLog } from "../shared/event-log.ts";
import type { State } from "./core/model.ts";
import { planSweep, swept, withoutLogs } from "./core/retention.ts";
import type { Decided } from "./core/work.ts";
import type { RunBytes } from "./run-bytes.ts";
import type { Store } from "./store.ts";

/** Ended jobs that one look takes into account: more than can pile up between two looks. */
const LOOK_JOBS = LIMITS.jobsKept + 1_000;

/**
 * One step of retention: the lane after it, and the rows to remove with it. Nothing that anybody waits for is touched; `log.prune` keeps
 * the newest row, which numbers the next event.
 */
export function sweep(
  { store, bytes, log }: { store: Store; bytes: RunBytes; log: EventLog },
  state: State,
  now: Millis,
): { decided: Decided<null>; rows: () => void } {
  const plan = planSweep(store.finalJobs(LOOK_JOBS), state.lane);
  const { jobs, logs } = plan;
  const expiredAt = now - LIMITS.idempotencyMs;
  const lane = swept(state.lane, plan, { remaining: store.keepsRequests(expiredAt), now });
  const rows = (): void => {
    for (const job of [...jobs, ...logs]) for (const run of job.runs) bytes.forget(run);
    for (const job of jobs) store.deleteJob(job);
    for (const job of logs) store.putJob(withoutLogs(job));
    log.prune(LIMITS.eventsKept);
    store.pruneRequests(expiredAt);
  };
  return { decided: { state: { ...state, lane }, jobs: [], events: [], answer: null }, rows };
}
