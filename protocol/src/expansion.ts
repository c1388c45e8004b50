import * as z from "zod";
import { LIMITS } from "./limits.ts";
import { locksSchema } from "./locks.ts";
import { requiresSchema, secretNameSchema, stepKindSchema, type RepositoryStep, type Requires } from "./submit.ts";
import {
  type Combination,
  combinationCount,
  combinationsOf,
  filledIn,
  inOrder,
  matrixSchema,
  needsOf,
  stepName,
  taskFileJobName,
} from "./task-file.ts";

/** What a runner offers that can read a task file whose jobs ask for something of their own, and run one step of it. */
export const EXPANSION_FEATURE = "expansion";

const template = z.string().min(1).max(LIMITS.nameCharacters);
const templates = z.array(template).max(LIMITS.labelsCount);

/** A job of a task file without what it does: all that a lane has to know of it. In texts of `requires` and `locks` `{name}` stands for a value of the matrix. */
export const expandedJobSchema = z.looseObject({
  kind: stepKindSchema,
  needs: z.array(taskFileJobName).max(LIMITS.taskFileJobs).optional(),
  matrix: matrixSchema.optional(),
  requires: z
    .looseObject({
      systems: templates.optional(),
      features: templates.optional(),
      labels: templates.optional(),
      isolation: requiresSchema.shape.isolation,
    })
    .optional(),
  locks: z.array(template).max(LIMITS.jobLocks).optional(),
  secrets: z.array(secretNameSchema).max(LIMITS.jobSecrets).optional(),
  planned: z.literal(true).optional(),
  movesState: z.literal(true).optional(),
});
export type ExpandedJob = z.output<typeof expandedJobSchema>;

/**
 * What a run has read in a task file whose jobs ask for something of their own: jobs by name, each of which the deployment queues as jobs of its lane, one
 * for each combination of its matrix. It stands in the signed result of that run.
 */
export const expansionSchema = z.looseObject({
  jobs: z
    .record(taskFileJobName, expandedJobSchema)
    .refine((jobs) => Object.keys(jobs).length > 0, "at least one job")
    .refine((jobs) => Object.keys(jobs).length <= LIMITS.taskFileJobs, `at most ${LIMITS.taskFileJobs} jobs`),
});
export type Expansion = z.output<typeof expansionSchema>;

/** One job of the lane that an expansion asks for: `needs` are names of jobs of the file, all of whose steps have to succeed before. */
export type ExpandedStep = {
  name: string;
  step: RepositoryStep;
  needs: readonly string[];
  requires: Requires;
  locks: readonly string[];
  secrets: readonly string[];
};

/** The steps of an expansion, in an order in which all that a step needs comes before it; or why it cannot be what a task file asks for. */
export function expandedSteps({ jobs }: Expansion): ExpandedStep[] | { fault: string } {
  const named = new Map(Object.entries(jobs));
  for (const [name, job] of named) {
    const missing = needsOf(job).find((need) => !named.has(need));
    if (missing !== undefined) return { fault: `job ${name} needs ${missing}, which is not there` };
  }
  const { order, rest } = inOrder(named);
  if (rest.length > 0) return { fault: `the jobs ${rest.join(", ")} need each other in a circle` };
  if ([...named.values()].reduce((count, job) => count + combinationCount(job), 0) > LIMITS.taskFileSteps)
    return { fault: `more than ${LIMITS.taskFileSteps} steps` };
  const steps = order.flatMap((name) => {
    const job = named.get(name);
    return job === undefined ? [] : combinationsOf(job).map((combination) => stepOf(name, job, combination));
  });
  const wrong = steps.find(
    ({ requires, locks }) =>
      !requiresSchema.safeParse(requires).success || (locks.length > 0 && !locksSchema.safeParse(locks).success),
  );
  return wrong === undefined ? steps : { fault: `${wrong.name}: what it requires, or a lock, is no such name` };
}

function stepOf(job: string, expanded: ExpandedJob, combination: Combination): ExpandedStep {
  const { kind, requires = {}, locks = [], secrets = [], planned, movesState } = expanded;
  const matrix = Object.keys(combination).length === 0 ? {} : { matrix: combination };
  return {
    name: stepName(job, combination),
    step: { job, ...matrix, kind, ...(planned ? { planned } : {}), ...(movesState ? { movesState } : {}) },
    needs: needsOf(expanded),
    requires: filledRequires(requires, combination),
    locks: filledList(locks, combination),
    secrets,
  };
}

/** What a job requires, with the values of a combination in the place of `{name}`. */
export function filledRequires(requires: NonNullable<ExpandedJob["requires"]>, combination: Combination): Requires {
  const { systems, features, labels, isolation } = requires;
  const lists = Object.entries({ systems, features, labels }).flatMap(([name, list]) =>
    list === undefined || list.length === 0 ? [] : [[name, filledList(list, combination)]],
  );
  return { ...Object.fromEntries(lists), ...(isolation === undefined ? {} : { isolation }) } as Requires;
}

/** Texts with the values of a combination in the place of `{name}`, each once. */
export function filledList(texts: readonly string[], combination: Combination): string[] {
  return [...new Set(texts.map((text) => filledIn(text, combination)))];
}
