import { LIMITS, type Millis, nextFiring, readCron, type StatedSchedule } from "@plumule/protocol";
import type { AwaitedSchedules, Job, Lane, Schedule } from "./model.ts";
import { isUnmet } from "./needs.ts";
import type { Work } from "./work.ts";

/**
 * What a run states that has ended well. What a stranger has pushed sets no schedules, nor does a job that a schedule itself has made, or a step of a file; one with
 * a quorum does not come here, because of several replicas nobody knows whose word it would be. `isRead`: the file was only read, and its steps
 * are to end well first.
 */
export function takeSchedules(work: Work, job: Job, stated: readonly StatedSchedule[], isRead: boolean): void {
  const { source, stranger, schedule, kind } = job.brief;
  if (kind !== "repository" || job.teardown || (stranger ?? schedule ?? job.step) !== undefined) return;
  if (source?.ref === undefined || !source.ref.startsWith("refs/heads/")) return;
  const { repository, ref } = source;
  const taken: AwaitedSchedules = { job: job.id, repository, ref, stated };
  const isOurs = isOfBranch(taken);
  if (stated.length === 0 && !work.lane.schedules.some(isOurs) && !work.lane.awaited.some(isOurs)) return;
  const awaited = work.lane.awaited.filter((one) => !isOurs(one));
  work.lane = { ...work.lane, awaited: isRead ? [...awaited, taken].slice(-LIMITS.deploymentSchedules) : awaited };
  if (!isRead) replace(work, taken);
}

/** Takes over what was read, once all steps of its file have ended well, and forgets it as soon as one has not. */
export function settleSchedules(work: Work): void {
  for (const awaited of work.lane.awaited) {
    const isPart = ({ id, step }: Job): boolean => id === awaited.job || step?.parent === awaited.job;
    const isOver = work.touched.some((job) => isPart(job) && isUnmet(job));
    if (!isOver && work.jobs.some(isPart)) continue;
    work.lane = { ...work.lane, awaited: work.lane.awaited.filter((one) => one !== awaited) };
    if (!isOver) replace(work, awaited);
  }
}

/**
 * From now on the schedules of a branch are these, and repeat this job. Those of other branches stay as they are, and one that has not changed keeps its time, so
 * that no push makes it fire twice or not at all.
 */
function replace(work: Work, { job, repository, ref, stated }: AwaitedSchedules): void {
  const isOurs = isOfBranch({ repository, ref });
  const known = work.lane.schedules.filter(isOurs);
  const ours = stated.flatMap(({ name, cron }): Schedule[] => {
    const before = known.find((one) => one.name === name);
    if (before?.cron === cron) return [{ ...before, job }];
    // The limits of another version, by which the runner has read the file, are not ours.
    const read = readCron(cron);
    if (!read.ok) return [];
    const dueAt = before?.dueAt === null ? null : nextFiring(read.value, work.now);
    return [{ name, cron, repository, ref, job, dueAt, last: before?.last ?? null }];
  });
  const others = work.lane.schedules.filter((one) => !isOurs(one));
  work.lane = { ...work.lane, schedules: [...others, ...ours].slice(-LIMITS.deploymentSchedules) };
}

type Branch = Pick<Schedule, "repository" | "ref">;

function isOfBranch({ repository, ref }: Branch): (one: Branch) => boolean {
  return (one) => one.repository === repository && one.ref === ref;
}

/** The schedules that are due. */
export function dueSchedules({ schedules }: Lane, now: Millis): Schedule[] {
  return schedules.filter(({ dueAt }) => dueAt !== null && dueAt <= now);
}
