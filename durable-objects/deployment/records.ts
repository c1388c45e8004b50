import type { Job, Lane, Run } from "./core/model.ts";

/**
 * What a stored record lacks that was written before a field was added: what the field's absence meant then. This is the one place for it; a
 * test reads the records of every release and asks for all that a new one has.
 */
const JOB_DEFAULTS: Partial<Job> = {};
const RUN_DEFAULTS: Partial<Run> = {};

/** Reads a stored job of any version. */
export function readJob(record: string): Job {
  const job = JSON.parse(record) as Job;
  return { ...JOB_DEFAULTS, ...job, runs: job.runs.map((run) => ({ ...RUN_DEFAULTS, ...run })) };
}

/** Reads a stored lane of any version. What it lacks is as in a lane that nobody has submitted to. */
export function readLane(record: string, empty: Lane): Lane {
  return { ...empty, ...(JSON.parse(record) as Lane) };
}
