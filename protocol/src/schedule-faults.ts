import { unknownJob } from "./nearest.ts";
import { type FileSchedule, jobsOfSchedule, needsOf, type TaskFileJob } from "./task-file.ts";
import type { TaskFileFault } from "./task-file-faults.ts";

type Jobs = ReadonlyMap<string, TaskFileJob>;

/** What is wrong between schedules, by name with the jobs that each names, and the jobs of their file: unknown ones, and those that would be run too often or never. */
export function scheduleFaults(schedules: ReadonlyMap<string, FileSchedule["jobs"]>, jobs: Jobs): TaskFileFault[] {
  const faults: TaskFileFault[] = [];
  const run = new Set<string>();
  for (const [schedule, named] of schedules) {
    const list = jobsOfSchedule({ jobs: named });
    for (const job of list ?? jobs.keys()) run.add(job);
    for (const [index, job] of (list ?? []).entries())
      if (!jobs.has(job)) {
        const path = ["schedules", schedule, "jobs", ...(typeof named === "string" ? [] : [index])];
        faults.push({ path, at: "value", detail: unknownJob(job, [...jobs.keys()]) });
      }
  }
  return [...faults, ...[...jobs].flatMap(([name, job]) => jobFaults(name, job, jobs, withNeeds(run, jobs)))].concat(
    pushFault(jobs),
  );
}

function jobFaults(name: string, job: TaskFileJob, jobs: Jobs, run: ReadonlySet<string>): TaskFileFault[] {
  if (job.on === "schedule")
    return run.has(name) ? [] : [{ path: ["jobs", name, "on"], at: "value", detail: "no schedule runs it" }];
  const need = needsOf(job).find((one) => jobs.get(one)?.on === "schedule");
  const detail = `\`${name}\` is run for every push, and \`${need}\` is for schedules alone`;
  return need === undefined ? [] : [{ path: ["jobs", name, "needs"], at: "value", detail }];
}

/** A deployment learns its schedules from what came of a push, and that nothing was run is no success. */
function pushFault(jobs: Jobs): TaskFileFault[] {
  const detail = "all are for schedules alone, which a push that succeeds brings: give one of them no `on`";
  return jobs.size > 0 && [...jobs.values()].every((job) => job.on === "schedule")
    ? [{ path: ["jobs"], at: "name", detail }]
    : [];
}

/** The names of these jobs, and of all that they need. */
function withNeeds(names: ReadonlySet<string>, jobs: Jobs): ReadonlySet<string> {
  const found = new Set(names);
  // What is added on the way is looked at too.
  for (const name of found) for (const need of needsOf(jobs.get(name) ?? {})) found.add(need);
  return found;
}
