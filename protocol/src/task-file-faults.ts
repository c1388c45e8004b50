import type * as z from "zod";
import { LIMITS } from "./limits.ts";
import { lockNameSchema } from "./locks.ts";
import { nearestName, unknownJob } from "./nearest.ts";
import { scheduleFaults } from "./schedule-faults.ts";
import { effectTaskSchema, installableSchema, requirementSchema } from "./submit.ts";
import {
  combinationCount,
  combinationsOf,
  type FileSchedule,
  fileScheduleSchema,
  filledIn,
  inOrder,
  listOf,
  needsOf,
  type TaskFileJob,
  taskFileJobSchema,
  taskFileSchema,
} from "./task-file.ts";

/** What is wrong with a task file: where, as a path into it, at the name of that place or at its value, and in words. */
export type TaskFileFault = { path: readonly (string | number)[]; at: "name" | "value"; detail: string };

/** Fields of a submit that people look for here, and where each is given. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  lock: "say `locks`",
  secret: "say `secrets`",
  limits:
    "the file of a commit cannot set them: give them with `plumule submit --max-memory|--max-tasks|--max-workspace|--max-log`",
  schedules: "schedules stand beside `jobs`, and name theirs; a job that is for them alone has `on: schedule`",
  cron: "schedules stand beside `jobs`, and name theirs; a job that is for them alone has `on: schedule`",
};

/** The faults of what a file holds, at most `LIMITS.taskFileFaults`; none for a task file. */
export function taskFileFaults(content: unknown): TaskFileFault[] {
  const parsed = taskFileSchema.safeParse(content);
  const faults = parsed.success ? [] : parsed.error.issues.flatMap(faultsOf);
  const jobs = readableJobs(content);
  return [
    ...faults,
    ...needFaults(jobs),
    ...matrixFaults(jobs),
    ...scheduleFaults(readableSchedules(content), jobs),
  ].slice(0, LIMITS.taskFileFaults);
}

/** The jobs of a file with those of their fields that are valid each for itself, so that one fault hides no other. */
export function readableJobs(content: unknown): ReadonlyMap<string, TaskFileJob> {
  const jobs = isObject(content) ? content["jobs"] : null;
  if (!isObject(jobs) || Object.keys(jobs).length > LIMITS.taskFileJobs) return new Map();
  return new Map(Object.entries(jobs).map(([name, job]) => [name, isObject(job) ? readable(job) : {}]));
}

/** The jobs that each schedule of a file names, null for all, as far as it can be read. */
function readableSchedules(content: unknown): ReadonlyMap<string, FileSchedule["jobs"]> {
  const schedules = isObject(content) ? content["schedules"] : null;
  if (!isObject(schedules) || Object.keys(schedules).length > LIMITS.taskFileSchedules) return new Map();
  return new Map(
    Object.entries(schedules).map(([name, schedule]) => {
      const jobs = fileScheduleSchema.shape.jobs.safeParse(isObject(schedule) ? schedule["jobs"] : undefined);
      return [name, jobs.success ? jobs.data : []];
    }),
  );
}

function readable(job: Readonly<Record<string, unknown>>): TaskFileJob {
  const valid = Object.entries(taskFileJobSchema.shape).filter(
    ([field, schema]) => job[field] !== undefined && schema.safeParse(job[field]).success,
  );
  const fields: TaskFileJob = Object.fromEntries(valid.map(([field]) => [field, job[field]]));
  // What stands in the place of a list's value cannot be told without the lists.
  return job["matrix"] === undefined || fields.matrix !== undefined ? fields : withoutTemplates(fields);
}

/** Fields whose texts may name lists of the matrix. */
const TEMPLATED: readonly string[] = ["build", "develop", "packages", "effect", "requires", "locks"];

function withoutTemplates(job: TaskFileJob): TaskFileJob {
  return Object.fromEntries(Object.entries(job).filter(([field]) => !TEMPLATED.includes(field)));
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function faultsOf(issue: z.core.$ZodIssue): TaskFileFault[] {
  const path = issue.path.map((part) => (typeof part === "number" ? part : String(part)));
  switch (issue.code) {
    case "unrecognized_keys":
      return issue.keys
        .slice(0, LIMITS.taskFileFaults)
        .map((key) => ({ path: [...path, key], at: "name", detail: unknownField(path, key) }));
    case "invalid_key":
      return [{ path, at: "name", detail: issue.issues[0]?.message ?? issue.message }];
    case "invalid_union": {
      // The alternatives are a text or a list of texts: a list is meant by whoever wrote one.
      const inside = issue.errors.find((issues) =>
        issues.some((one) => one.path.length > 0 || one.code === "unrecognized_keys"),
      );
      if (inside === undefined) return [{ path, at: "value", detail: alternatives(issue) }];
      return inside.flatMap((one) => faultsOf({ ...one, path: [...issue.path, ...one.path] }));
    }
    case "invalid_type":
      return [{ path, at: "value", detail: wrongType(issue) }];
    default:
      return [{ path, at: "value", detail: issue.message.replace(/^Invalid (?:input|string): /, "") }];
  }
}

function wrongType({ expected, message }: z.core.$ZodIssueInvalidType): string {
  const received = /received (\w+)$/.exec(message)?.[1];
  if (received === "undefined") return "it is missing";
  if (expected === "string" && (received === "number" || received === "boolean")) return "not a text: put it in quotes";
  return message.replace("Invalid input: ", "");
}

function alternatives(issue: z.core.$ZodIssueInvalidUnion): string {
  const text = issue.errors[0]?.[0];
  return text === undefined || text.code === "invalid_type" ? "expected a text or a list of texts" : text.message;
}

function unknownField(path: readonly (string | number)[], key: string): string {
  const [place, known] = placeOf(path);
  const elsewhere =
    path.length === 0 || place === "a job"
      ? ELSEWHERE[key]
      : place === "`requires`" && key === "pool"
        ? POOL
        : undefined;
  if (elsewhere !== undefined) return `\`${key}\`: ${elsewhere}`;
  const nearest = nearestName(key, known);
  return `\`${key}\` is not a field of ${place}; ${nearest === null ? `it knows ${known.join(", ")}` : `did you mean ${nearest}?`}`;
}

const POOL =
  "which machines are asked is not for the file of a commit to say: give it in the trigger rule, or with `plumule submit --pool`";

/** Fields of the objects that a job may have. */
const INSIDE: Readonly<Record<string, string[]>> = {
  requires: ["systems", "features", "labels", "isolation"],
  effect: Object.keys(effectTaskSchema.shape).filter((name) => name !== "kind"),
  timeouts: ["runMs", "silenceMs"],
};

/** What a place in a file is called, and the fields that it may have. */
function placeOf([first, , field]: readonly (string | number)[]): [string, string[]] {
  if (first === undefined) return ["a task file", Object.keys(taskFileSchema.shape)];
  if (first === "schedules") return ["a schedule", Object.keys(fileScheduleSchema.shape)];
  return field === undefined ? ["a job", Object.keys(taskFileJobSchema.shape)] : [`\`${field}\``, INSIDE[field] ?? []];
}

function needFaults(jobs: ReadonlyMap<string, TaskFileJob>): TaskFileFault[] {
  const faults: TaskFileFault[] = [];
  for (const [name, job] of jobs) {
    for (const [index, need] of needsOf(job).entries()) {
      const path = ["jobs", name, "needs", ...(typeof job.needs === "string" ? [] : [index])];
      if (!jobs.has(need)) faults.push({ path, at: "value", detail: unknownJob(need, [...jobs.keys()]) });
      else if (needsOf(job).indexOf(need) !== index)
        faults.push({ path, at: "value", detail: `\`${need}\` stands twice` });
    }
  }
  const { rest } = inOrder(jobs);
  const circle = circleIn(jobs, rest);
  const [first] = circle;
  if (first !== undefined)
    faults.push({
      path: ["jobs", first, "needs"],
      at: "value",
      detail: `the jobs need each other in a circle: ${[...circle, first].join(" needs ")}`,
    });
  return faults;
}

/** Each of `rest` needs another of them: whoever walks on comes to a job a second time. */
function circleIn(jobs: ReadonlyMap<string, TaskFileJob>, rest: readonly string[]): string[] {
  const walk: string[] = [];
  let at = rest[0];
  while (at !== undefined && !walk.includes(at)) {
    walk.push(at);
    const job: TaskFileJob | undefined = jobs.get(at);
    at = job === undefined ? undefined : needsOf(job).find((need) => rest.includes(need));
  }
  return at === undefined ? [] : walk.slice(walk.indexOf(at));
}

function matrixFaults(jobs: ReadonlyMap<string, TaskFileJob>): TaskFileFault[] {
  const faults: TaskFileFault[] = [];
  let steps = 0;
  for (const [name, job] of jobs) {
    steps += combinationCount(job);
    if (steps > LIMITS.taskFileSteps) {
      const detail = `with this job the file has ${steps} steps; at most ${LIMITS.taskFileSteps} are run`;
      return [...faults, { path: ["jobs", name], at: "name", detail }];
    }
    for (const { path, text, schema } of templatesOf(job)) {
      const detail = templateFault(job, text, schema);
      if (detail !== null) faults.push({ path: ["jobs", name, ...path], at: "value", detail });
    }
  }
  return faults;
}

function templateFault(job: TaskFileJob, text: string, schema: z.ZodString): string | null {
  const names = Object.keys(job.matrix ?? {});
  for (const [whole, name = ""] of text.matchAll(/\{([^{}]*)\}/g))
    if (!names.includes(name))
      return `${whole} stands for nothing; ${names.length === 0 ? "the job has no matrix" : `the matrix has ${names.join(", ")}`}`;
  for (const combination of combinationsOf(job)) {
    const filled = filledIn(text, combination);
    const parsed = schema.safeParse(filled);
    if (!parsed.success) return `\`${filled}\`: ${parsed.error.issues[0]?.message.replace(/^Invalid string: /, "")}`;
  }
  return null;
}

/** A text with places for values of the matrix, where it stands, and what it has to be when these are filled in. */
type Template = { path: (string | number)[]; text: string; schema: z.ZodString };

function templatesOf({ build, develop, packages, effect, requires, locks }: TaskFileJob): Template[] {
  const all = (
    path: (string | number)[],
    texts: string | readonly string[] | undefined,
    schema: z.ZodString,
  ): Template[] =>
    listOf(texts).map((text, index) => ({ path: typeof texts === "string" ? path : [...path, index], text, schema }));
  const installable =
    typeof effect === "object"
      ? all(["effect", "installable"], effect.installable, installableSchema)
      : all(["effect"], effect, installableSchema);
  return [
    ...all(["build"], build, installableSchema),
    ...all(["develop"], develop, installableSchema),
    ...all(["packages"], packages, installableSchema),
    ...installable,
    ...(["systems", "features", "labels"] as const).flatMap((name) =>
      all(["requires", name], requires?.[name], requirementSchema),
    ),
    ...all(["locks"], locks, lockNameSchema),
  ];
}
