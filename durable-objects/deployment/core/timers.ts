import type { JobId, Millis, RunId } from "@plumule/protocol";
import { expire } from "./lease.ts";
import { interrupt } from "./cancel.ts";
import { lockWord } from "./locks.ts";
import { type Job, liveRuns, type Moment, type Outputs, type Run, type State, timeoutsOf } from "./model.ts";
import { closeQuorum, renewals } from "./quorum.ts";
import { openCount } from "./replicas.ts";
import { dispatches, withdraw } from "./tickets.ts";
import { type Decided, reason, Work } from "./work.ts";

/** Something that becomes due for a job, or for one run of it. `dispatch`, `sweep` and publishing are the shell's; they have no timer here. */
export type Timer = { at: Millis; job: JobId; kind: "queue" | "ready" | "lease" | "run" | "silence"; run?: RunId };

/** Every timer of every job that is not final. Each has at least one (P13). */
export function timers({ jobs }: State, outputs: Outputs | null): Timer[] {
  return jobs.flatMap((job) => timersOf(job, outputs));
}

/** The timers of one job. */
export function timersOf(job: Job, outputs: Outputs | null): Timer[] {
  const live = liveRuns(job);
  const waits = job.state === "held" || job.state === "queued" || openCount(job) > 0;
  const timed: Timer[] = [];
  if (waits) timed.push({ at: job.queueUntil, job: job.id, kind: "queue" });
  if (waits && job.state !== "held" && job.ready !== null) timed.push({ at: job.ready.at, job: job.id, kind: "ready" });
  return [...timed, ...live.flatMap((run) => timersOfRun(job, run, outputs))];
}

function timersOfRun(job: Job, run: Run, outputs: Outputs | null): Timer[] {
  const lease: Timer = { at: run.leaseUntil, job: job.id, kind: "lease", run: run.id };
  if (job.state !== "running" || run.startedAt === null || job.quorum?.conclusion != null) return [lease];
  const { runMs, silenceMs } = timeoutsOf(job.brief);
  const heardAt = Math.max(run.startedAt, run.reportedAt ?? 0, outputs?.get(run.epoch)?.at ?? 0);
  return [
    lease,
    { at: run.startedAt + runMs, job: job.id, kind: "run", run: run.id },
    { at: heardAt + silenceMs, job: job.id, kind: "silence", run: run.id },
  ];
}

/**
 * When the object has to wake up next, or null. `publishAt` is when events have to be told to the namespace, null when none are left.
 */
export function nextWake(state: State, outputs: Outputs | null, publishAt: Millis | null): Millis | null {
  const owed = [...dispatches(state), ...renewals(state), ...state.lane.unsigned].map(({ dueAt }) => dueAt);
  const due = [...timers(state, outputs).map(({ at }) => at), ...owed];
  const word = lockWord(state);
  if (word !== null) due.push(word.dueAt);
  if (publishAt !== null) due.push(publishAt);
  if (state.lane.sweepAt !== null) due.push(state.lane.sweepAt);
  due.push(...state.lane.schedules.flatMap(({ dueAt }) => dueAt ?? []));
  return due.length === 0 ? null : Math.min(...due);
}

/** Handles one timer that is due. One that is no longer due (the state moved on) changes nothing. */
export function fire(state: State, timer: Timer, moment: Moment): Decided<null> {
  const work = new Work(state, moment);
  const job = work.find(timer.job);
  const current = job === undefined ? [] : timersOf(job, moment.outputs);
  const due = current.find(({ kind, at, run }) => kind === timer.kind && at <= work.now && (timer.run ?? run) === run);
  if (job === undefined || due === undefined) return work.done(null);
  switch (timer.kind) {
    case "queue":
      queueExpired(work, job);
      break;
    case "ready":
      work.put({ ...job, ready: null });
      break;
    case "lease":
      for (const run of liveRuns(job)) if (run.id === due.run) expire(work, job, run);
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

function queueExpired(work: Work, job: Job): void {
  const waited = `${timeoutsOf(job.brief).queueMs} ms`;
  const missed = job.state === "held" ? "approved" : "started";
  const why = reason("queue-timeout", `The job waited for ${waited} without being ${missed}.`);
  if (job.state === "held" || job.state === "queued")
    work.move(withdraw(work, job), "queue expired", "failed", { reason: why });
  else closeQuorum(work, job, reason("queue-timeout", `No further runner came for the quorum within ${waited}.`));
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
