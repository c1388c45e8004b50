import type { JobId, Millis } from "@plumule/protocol";
import { expire } from "./lease.ts";
import { interrupt } from "./cancel.ts";
import { type Job, liveRun, type Moment, type Output, type State, timeoutsOf } from "./model.ts";
import { dispatches, withdraw } from "./tickets.ts";
import { type Decided, reason, Work } from "./work.ts";

/** Something that becomes due for a job. `dispatch`, `sweep` and publishing are the shell's; they have no timer here. */
export type Timer = { at: Millis; job: JobId; kind: "queue" | "ready" | "lease" | "run" | "silence" };

/** Every timer of every job that is not final. Each has at least one (P13). */
export function timers({ jobs }: State, output: Output | null): Timer[] {
  return jobs.flatMap((job) => timersOf(job, output));
}

/** The timers of one job. */
export function timersOf(job: Job, output: Output | null): Timer[] {
  const run = liveRun(job);
  if (run === null) {
    const queue: Timer = { at: job.queueUntil, job: job.id, kind: "queue" };
    return job.state === "queued" && job.ready !== null
      ? [queue, { at: job.ready.at, job: job.id, kind: "ready" }]
      : [queue];
  }
  const lease: Timer = { at: run.leaseUntil, job: job.id, kind: "lease" };
  if (job.state !== "running" || run.startedAt === null) return [lease];
  const { runMs, silenceMs } = timeoutsOf(job.brief);
  const heardAt = Math.max(run.startedAt, run.reportedAt ?? 0, output?.at ?? 0);
  return [
    lease,
    { at: run.startedAt + runMs, job: job.id, kind: "run" },
    { at: heardAt + silenceMs, job: job.id, kind: "silence" },
  ];
}

/**
 * When the object has to wake up next, or null. `publishAt` is when events have to be told to the namespace, null when none are left.
 */
export function nextWake(state: State, output: Output | null, publishAt: Millis | null): Millis | null {
  const due = [...timers(state, output), ...dispatches(state).map(({ dueAt }) => ({ at: dueAt }))].map(({ at }) => at);
  if (publishAt !== null) due.push(publishAt);
  if (state.lane.sweepAt !== null) due.push(state.lane.sweepAt);
  return due.length === 0 ? null : Math.min(...due);
}

/** Handles one timer that is due. One that is no longer due (the state moved on) changes nothing. */
export function fire(state: State, timer: Timer, moment: Moment): Decided<null> {
  const work = new Work(state, moment);
  const job = work.find(timer.job);
  const current = job === undefined ? [] : timersOf(job, moment.output);
  if (job === undefined || !current.some(({ kind, at }) => kind === timer.kind && at <= work.now))
    return work.done(null);
  switch (timer.kind) {
    case "queue":
      work.move(withdraw(work, job), "queue expired", "failed", {
        reason: reason(
          "queue-timeout",
          `The job waited for ${timeoutsOf(job.brief).queueMs} ms without being started.`,
        ),
      });
      break;
    case "ready":
      work.put({ ...job, ready: null });
      break;
    case "lease":
      expire(work, job);
      break;
    case "run":
      stop(work, job, "run-timeout", `The run took longer than ${timeoutsOf(job.brief).runMs} ms.`);
      break;
    case "silence":
      stop(work, job, "silence-timeout", `The run said nothing for ${timeoutsOf(job.brief).silenceMs} ms.`);
      break;
  }
  return work.done(null);
}

function stop(work: Work, job: Job, code: "run-timeout" | "silence-timeout", detail: string): void {
  interrupt(work, job, {
    cause: "timed out",
    state: "failed",
    how: "always",
    why: reason(code, detail),
    supersededBy: null,
  });
}
