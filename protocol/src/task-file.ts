import * as z from "zod";
import type { JsonSchema } from "./json-schema.ts";
import { LIMITS } from "./limits.ts";
import { cronSchema, scheduleNameSchema, type StatedSchedule } from "./schedules.ts";
import { effectTaskSchema, environmentSchema, isolationSchema, secretNameSchema } from "./submit.ts";

/** The name of a job in a task file. */
export const taskFileJobName = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, "1 to 63 of a-z, 0-9 and hyphens");
const script = z.string().min(1).max(LIMITS.scriptCharacters);

/** An installable in which `{name}` stands for the value of a list of the job's matrix. It is one only when these are in place. */
const template = z
  .string()
  .min(1)
  .max(1_000)
  .regex(/^[^\s\p{Cc}]+$/u, "an installable without white space");

/** A name in which `{name}` stands for the value of a list of the job's matrix; what it becomes has to be a name of its kind. */
const nameTemplate = z
  .string()
  .min(1)
  .max(LIMITS.nameCharacters)
  .regex(/^[^\s\p{Cc}]+$/u, "a name without white space");
const oneOrMore = <T extends z.ZodType>(schema: T, most: number): z.ZodUnion<[T, z.ZodArray<T>]> =>
  z.union([schema, z.array(schema).min(1).max(most)]);

/** What the runner of one job has to offer. No pool: which machines are asked is not for the file of a commit to say. */
const taskFileRequiresSchema = z.strictObject({
  systems: z.array(nameTemplate).min(1).max(8).optional(),
  features: z.array(nameTemplate).min(1).max(LIMITS.labelsCount).optional(),
  labels: z.array(nameTemplate).min(1).max(LIMITS.labelsCount).optional(),
  isolation: isolationSchema.optional(),
});

const effectSchema = effectTaskSchema.omit({ kind: true }).extend({ installable: template });

/** The matrix of a job: lists by name. */
export const matrixSchema = z
  .record(
    z.string().regex(/^[a-z][a-z0-9_]{0,31}$/, "1 to 32 of a-z, 0-9 and underscore, starting with a letter"),
    z
      .array(
        z
          .string()
          .min(1)
          .max(LIMITS.matrixValueCharacters)
          .regex(/^[^\p{Cc}]*$/u, "text without control characters"),
      )
      .min(1)
      .max(LIMITS.matrixValues)
      .refine((values) => new Set(values).size === values.length, "a value stands twice"),
  )
  .refine((lists) => Object.keys(lists).length <= LIMITS.matrixLists, `at most ${LIMITS.matrixLists} lists`);

/** One job of a task file: `shell`, `build` or `effect`, and what belongs to each. */
export const taskFileJobSchema = z
  .strictObject({
    shell: script.describe("A script for bash -euo pipefail, in the checkout").optional(),
    develop: template.describe("Flake whose development shell the script runs in").optional(),
    packages: z.array(template).min(1).max(64).describe("Packages that the script finds in its PATH").optional(),
    build: z
      .union([template, z.array(template).min(1).max(64)])
      .describe("What Nix builds: one installable or a list")
      .optional(),
    effect: z
      .union([template, effectSchema])
      .describe("An effect: its installable, or with `script`, `plan` and `moveState` as in a submit")
      .optional(),
    needs: z
      .union([taskFileJobName, z.array(taskFileJobName).max(LIMITS.taskFileJobs)])
      .describe("Jobs that have to succeed before this one is run")
      .optional(),
    on: z
      .literal("schedule")
      .describe("With `schedule` the job is not run for a push, but by the schedules that name it, or all jobs")
      .optional(),
    matrix: matrixSchema
      .describe("Named lists: the job is run once for each combination of their values, which is in MATRIX_<NAME>")
      .optional(),
    env: environmentSchema.describe("Environment variables of the script").optional(),
    requires: taskFileRequiresSchema.describe("What the runner of this job has to offer").optional(),
    locks: oneOrMore(nameTemplate, LIMITS.jobLocks).describe("Locks that this job holds while it works").optional(),
    secrets: oneOrMore(secretNameSchema, LIMITS.jobSecrets)
      .describe("Names of the submit's or the rule's secrets that this job is given")
      .optional(),
    timeouts: z
      .strictObject({
        runMs: z.int().min(1).max(LIMITS.runMaxMs).optional(),
        silenceMs: z.int().min(1).max(LIMITS.silenceMaxMs).optional(),
      })
      .describe(
        "How long each run of this job may take, and be silent, ms; never longer than the run that it is a part of",
      )
      .optional(),
  })
  .superRefine((job, context) => {
    const fault = (message: string, ...path: string[]): void => context.addIssue({ code: "custom", path, message });
    if ([job.shell, job.build, job.effect].filter((work) => work !== undefined).length !== 1)
      fault("needs one of `shell`, `build` and `effect`");
    else if (job.shell === undefined)
      for (const field of ["develop", "packages", "env"] as const)
        if (job[field] !== undefined)
          fault(
            `\`${field}\` is for \`shell\`; ${job.build === undefined ? "an effect" : "a build of Nix"} sees none of it`,
            field,
          );
    if (job.develop !== undefined && job.packages !== undefined)
      fault("`develop` brings a shell of its own; put the packages into it", "packages");
  })
  .meta({ oneOf: [{ required: ["shell"] }, { required: ["build"] }, { required: ["effect"] }] });
export type TaskFileJob = z.output<typeof taskFileJobSchema>;

const branchName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._+@=/-]{0,199}$/, "the name of a branch, such as main");

/** When jobs of the file are run by the clock. */
export const fileScheduleSchema = z.strictObject({
  cron: cronSchema.describe(
    "Minute, hour, day of month, month and day of week, in UTC: `0 3 * * *` is every night at 3",
  ),
  jobs: z
    .union([taskFileJobName, z.array(taskFileJobName).min(1).max(LIMITS.taskFileJobs)])
    .describe("What is run, with what it needs; without this all jobs of the file")
    .optional(),
  branches: z
    .union([branchName, z.array(branchName).min(1).max(16)])
    .describe("Branches on which the schedule counts; without this main and master")
    .optional(),
});
export type FileSchedule = z.output<typeof fileScheduleSchema>;
/** The schedules of a file by name. */
export type FileSchedules = Readonly<Record<string, FileSchedule>>;

/** `.radicle/plumule.yaml`: the work that a project describes for itself, as the steps of one run, or as jobs of the lane. */
export const taskFileSchema = z.strictObject({
  version: z.literal(1).optional(),
  jobs: z
    .record(taskFileJobName, taskFileJobSchema)
    .refine((jobs) => Object.keys(jobs).length > 0, "at least one job")
    .refine((jobs) => Object.keys(jobs).length <= LIMITS.taskFileJobs, `at most ${LIMITS.taskFileJobs} jobs`)
    .meta({ minProperties: 1, maxProperties: LIMITS.taskFileJobs }),
  schedules: z
    .record(scheduleNameSchema, fileScheduleSchema)
    .refine(
      (schedules) => Object.keys(schedules).length <= LIMITS.taskFileSchedules,
      `at most ${LIMITS.taskFileSchedules} schedules`,
    )
    .meta({ maxProperties: LIMITS.taskFileSchedules })
    .optional(),
});
export type TaskFile = z.output<typeof taskFileSchema>;

/** The JSON Schema of a task file, for editors. */
export function taskFileJsonSchema(): JsonSchema {
  const schema: unknown = z.toJSONSchema(taskFileSchema, { io: "input", reused: "inline" });
  return { title: "plumule task file (.radicle/plumule.yaml)", ...(schema as JsonSchema) };
}

/** The jobs that a schedule names, as a list; null for all of the file. */
export function jobsOfSchedule({ jobs }: Pick<FileSchedule, "jobs">): readonly string[] | null {
  return typeof jobs === "string" ? [jobs] : (jobs ?? null);
}

/** The branches on which a schedule counts. A commit that waits on another one, or in a patch, has none. */
export function branchesOf({ branches = ["main", "master"] }: Pick<FileSchedule, "branches">): readonly string[] {
  return typeof branches === "string" ? [branches] : branches;
}

/** Those of a file's schedules that count for a ref, as a result states them. */
export function schedulesFor(schedules: FileSchedules, ref: string): StatedSchedule[] {
  return Object.entries(schedules).flatMap(([name, schedule]) =>
    branchesOf(schedule).some((branch) => ref === `refs/heads/${branch}`) ? [{ name, cron: schedule.cron }] : [],
  );
}

/** What a job needs, as a list. */
export function needsOf({ needs }: Needing): readonly string[] {
  return listOf(needs);
}
type Needing = { needs?: string | readonly string[] | undefined };

/** One text or several, as a list. */
export function listOf(texts: string | readonly string[] | undefined): readonly string[] {
  return texts === undefined ? [] : typeof texts === "string" ? [texts] : texts;
}

/** Jobs with those before them that they need, otherwise in the order of the file; `rest` are those in a circle, or behind one. */
export function inOrder(jobs: ReadonlyMap<string, Needing>): { order: string[]; rest: string[] } {
  const order: string[] = [];
  let rest = [...jobs.keys()];
  for (;;) {
    const next = rest.find((name) => {
      const job = jobs.get(name);
      // A need that is not in the file is a fault of its own, and no circle.
      return job === undefined || needsOf(job).every((need) => !jobs.has(need) || order.includes(need));
    });
    if (next === undefined) return { order, rest };
    order.push(next);
    rest = rest.filter((name) => name !== next);
  }
}

/** One combination of a matrix: a value for each of its lists. */
export type Combination = Readonly<Record<string, string>>;

/** All combinations, the last list turning fastest; one without values for a job without a matrix. */
export function combinationsOf({ matrix = {} }: Pick<TaskFileJob, "matrix">): Combination[] {
  return Object.entries(matrix).reduce<Combination[]>(
    (all, [name, values]) => all.flatMap((one) => values.map((value) => ({ ...one, [name]: value }))),
    [{}],
  );
}

/** How many combinations a matrix has, without making them: a small file may ask for more than any memory holds. */
export function combinationCount({ matrix = {} }: Pick<TaskFileJob, "matrix">): number {
  return Object.values(matrix).reduce((count, values) => count * values.length, 1);
}

/** An installable, or another text, with the values of a combination in the place of `{name}`. */
export function filledIn(template: string, combination: Combination): string {
  return template.replaceAll(/\{([^{}]*)\}/g, (whole, name: string) => combination[name] ?? whole);
}

/** The name of one step: that of its job, with the combination of the matrix that it is. */
export function stepName(job: string, combination: Combination): string {
  const values = Object.entries(combination).map(([list, value]) => `${list}=${value}`);
  return values.length === 0 ? job : `${job} (${values.join(", ")})`;
}
