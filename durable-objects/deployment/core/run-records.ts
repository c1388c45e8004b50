import type { Reason } from "@plumule/protocol";
import type { Job, Run } from "./model.ts";
import { runView } from "./views.ts";
import type { Work } from "./work.ts";

/** Replaces a run of a job. */
export function withRun(job: Job, run: Run): Job {
  return { ...job, runs: job.runs.with(run.attempt - 1, run) };
}

/** Ends a run that brought no result: its log is what arrived. */
export function endRun(work: Work, run: Run, state: "cancelled" | "lost", why: Reason): Run {
  return {
    ...run,
    state,
    phase: null,
    undelivered: null,
    finishedAt: work.now,
    reason: why,
    log: { state: "truncated", bytes: work.moment.outputs?.get(run.epoch)?.bytes ?? 0, sha256: null },
  };
}

/** Tells something about one run of a job. */
export function tellRun(
  work: Work,
  type: "run.assigned" | "run.running" | "run.lost" | "run.finished",
  job: Job,
  run: Run,
  outputs: Parameters<typeof runView>[4] = [],
): void {
  work.tell(type, job, { run: runView(work.lane, job, run, null, outputs) });
}
