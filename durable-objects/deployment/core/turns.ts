import type { JobId } from "@plumule/protocol";
import type { Job } from "./model.ts";

/** The first of these jobs that is a step which another step needs. */
export function needAmong(jobs: readonly Job[], { step }: Job): Job | undefined {
  if (step === undefined || step.needs.length === 0) return undefined;
  return jobs.find((other) => other.step?.parent === step.parent && step.needs.includes(other.step.job));
}

/** The place of a job in its lane: steps of a task file stand where the job stood that read it. Sorts like ids, which sort by submission. */
function placeOf({ id, step }: Job): JobId {
  return step?.parent ?? id;
}

/** Whether one job of a lane comes before another, as far as their places go. */
export function isBefore(one: Job, other: Job): boolean {
  const [a, b] = [placeOf(one), placeOf(other)];
  return a === b ? one.id < other.id : a < b;
}

/** The queued job whose turn is next: the first in the lane all of whose needs have ended. */
export function nextInLine(jobs: readonly Job[]): Job | null {
  let next: Job | null = null;
  for (const job of jobs)
    if (job.state === "queued" && (next === null || isBefore(job, next)) && needAmong(jobs, job) === undefined)
      next = job;
  return next;
}
