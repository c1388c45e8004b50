import { LIMITS, type Millis } from "@plumule/protocol";
import { withReleases } from "./locks.ts";
import type { Job, Lane } from "./model.ts";

/** Jobs that retention handles in one step, so that an alarm stays short. */
export const SWEEP_JOBS = 100;
/** Ended jobs after which retention looks without waiting for its timer. */
export const SWEEP_AFTER_COUNT = 100;
/** Pause between two steps of one sweep, ms. */
const SWEEP_STEP_MS = 1_000;

/** What one step of retention removes: whole jobs, and the logs and derivations of jobs that stay. */
export type Sweep = { jobs: readonly Job[]; logs: readonly Job[]; more: boolean };

/**
 * What is beyond the limits, oldest first. `final` are the ended jobs, newest first. A log is kept while it is among the newest
 * `logsKept` and within `logsKeptBytes`; a job while it is among the newest `jobsKept`. The job that is live is never removed, nor is one that a schedule repeats, that later ones are compared with, or that ended unseen and
 * keeps its locks until somebody says how, unless the whole deployment was.
 */
export function planSweep(final: readonly Job[], lane: Lane): Sweep {
  const removed = lane.removedAt !== null;
  const needed = new Set([...lane.schedules, ...lane.awaited, ...lane.builtSteps].map(({ job }) => job));
  const jobs = (removed ? final : final.slice(LIMITS.jobsKept)).filter(
    (job) => removed || (job.id !== lane.currentJob && !needed.has(job.id) && job.locks === undefined),
  );
  const gone = new Set(jobs);
  let count = 0;
  let bytes = 0;
  const logs = final.filter((job) => {
    const kept = job.runs.filter((run) => run.log.state !== "expired");
    count += kept.length;
    bytes += kept.reduce((sum, run) => sum + run.log.bytes, 0);
    return kept.length > 0 && !gone.has(job) && (count > LIMITS.logsKept || bytes > LIMITS.logsKeptBytes);
  });
  const step = { jobs: jobs.slice(-SWEEP_JOBS), logs: logs.slice(-SWEEP_JOBS) };
  return { ...step, more: step.jobs.length < jobs.length || step.logs.length < logs.length };
}

/** A job whose logs and derivations are removed; their length and digest stay in the signed statement. */
export function withoutLogs(job: Job): Job {
  return {
    ...job,
    runs: job.runs.map((run) => ({ ...run, derivationCharacters: 0, log: { ...run.log, state: "expired" } })),
  };
}

/** The lane after a step of retention. `remaining`: answers to idempotency keys are still kept, so there is a reason to look again. */
export function swept(
  lane: Lane,
  { jobs, more }: Pick<Sweep, "jobs" | "more">,
  { remaining, now }: { remaining: boolean; now: Millis },
): Lane {
  const sweepAt = more ? now + SWEEP_STEP_MS : remaining ? now + LIMITS.idempotencyMs : null;
  return { ...withReleases(lane, jobs, now), sweepAt, unsweptCount: more ? lane.unsweptCount : 0 };
}
