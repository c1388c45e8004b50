import { isRefusal, type Millis, nextFiring, readCron } from "@plumule/protocol";
import type { Job, Lane, Moment, Schedule, State } from "./model.ts";
import { dueSchedules } from "./schedules.ts";
import { idOf, submit, type Submission, type Submitted } from "./submit.ts";
import { type Decided, Work } from "./work.ts";

/** What came of a schedule that was due: the job, or null where none was made. */
export type Fired = Submitted | null;

/**
 * A schedule is due: its job enters the lane behind all others, and superseding none. One decision makes the job and says when the schedule is due
 * again, later than now however many times were missed, so that no crash and no clock that is put back makes it fire twice. While a job of
 * the schedule has not ended, or the lane takes none, no further one is made. `submission` null: what it repeats is gone.
 */
export function fireSchedule(
  state: State,
  schedule: Schedule,
  submission: Submission | null,
  moment: Moment,
): Decided<Fired> {
  const { name, dueAt } = schedule;
  if (!dueSchedules(state.lane, moment.now).includes(schedule) || dueAt === null)
    return { state, jobs: [], events: [], answer: null };
  const next = after(schedule, Math.max(moment.now, dueAt));
  const fired = (last: NonNullable<Schedule["last"]>): State => ({
    ...state,
    lane: withSchedule(state.lane, schedule, { ...schedule, dueAt: next, last }),
  });
  const unfinished = state.jobs.find(({ brief }) => isOf(schedule, brief));
  const submitted =
    submission === null || unfinished !== undefined
      ? null
      : submit(fired({ at: moment.now, job: idOf(state.lane, submission), detail: null }), submission, moment);
  if (submitted !== null && !isRefusal(submitted)) return submitted;
  const detail =
    unfinished === undefined
      ? (submitted?.detail ?? `Job ${schedule.job}, which ${name} repeats, is not kept any more.`)
      : `Job ${unfinished.id}, which ${name} made before, is ${unfinished.state}.`;
  const work = new Work(state, moment);
  work.lane = fired({ at: moment.now, job: null, detail }).lane;
  return work.done(null);
}

/** Stops the schedules of a name, on all branches, or lets them go on from now. */
export function pauseSchedule(
  state: State,
  { name, paused }: { name: string; paused: boolean },
  moment: Moment,
): Decided<null> {
  const work = new Work(state, moment);
  const schedules = work.lane.schedules.map((one): Schedule => {
    if (one.name !== name || paused === (one.dueAt === null)) return one;
    return { ...one, dueAt: paused ? null : after(one, work.now) };
  });
  if (schedules.some((one, index) => one !== state.lane.schedules[index])) work.lane = { ...work.lane, schedules };
  return work.done(null);
}

function isOf({ name, repository, ref }: Schedule, { schedule, source }: Job["brief"]): boolean {
  return schedule === name && source?.repository === repository && source.ref === ref;
}

function withSchedule(lane: Lane, before: Schedule, is: Schedule): Lane {
  return { ...lane, schedules: lane.schedules.map((one) => (one === before ? is : one)) };
}

/** When a schedule is due after a time. One that could be kept when it came, and cannot any more, is paused. */
function after({ cron }: Schedule, at: Millis): Millis | null {
  const read = readCron(cron);
  return read.ok ? nextFiring(read.value, at) : null;
}
