import {
  type Combination,
  combinationsOf,
  type Expansion,
  filledIn,
  filledList,
  filledRequires,
  inOrder,
  listOf,
  needsOf,
  type Requires,
  stepName,
  type Task,
  type TaskFile,
  type TaskFileJob,
  type Timeouts,
} from "@plumule/protocol";

/** Files that describe a repository's work, the first that is there counts. */
export const TASK_FILES = [".radicle/plumule.yaml", ".radicle/native.yaml", ".radicle/ambient.yaml"] as const;

/**
 * One thing to do in a checkout. `flake`: whatever checks and default package the flake offers. `needs` are names of steps that have to
 * succeed before it; `job` is there for one combination of a job's matrix, `env` is weaker than the environment of the run, `matrix` stronger.
 */
export type Step = {
  name: string;
  task: Exclude<Task, { kind: "repository" }> | { kind: "flake" };
  job?: string;
  needs?: readonly string[];
  env?: Readonly<Record<string, string>>;
  matrix?: Readonly<Record<string, string>>;
  timeouts?: Pick<Timeouts, "runMs" | "silenceMs">;
  /** For schedules alone: a push does not run it. */
  on?: "schedule";
  /** What the file asks for that belongs to a job of the lane. */
  requires?: Requires;
  locks?: readonly string[];
  secrets?: readonly string[];
};

/** The steps of a task file without faults, in an order in which all that a step needs comes before it. */
export function stepsOf(file: TaskFile): Step[] {
  const jobs = new Map(Object.entries(file.jobs));
  const names = new Map<string, string[]>();
  return inOrder(jobs).order.flatMap((name) => {
    const job = jobs.get(name);
    if (job === undefined) return [];
    const needs = needsOf(job).flatMap((need) => names.get(need) ?? []);
    const steps = combinationsOf(job).map((combination) => stepOf(name, job, needs, combination));
    names.set(
      name,
      steps.map((step) => step.name),
    );
    return steps;
  });
}

/** Steps of jobs, by their names, and all that they need, in their order; empty when no job has one of the names. */
export function stepsFor(steps: readonly Step[], jobs: readonly string[]): Step[] {
  const taken = new Set(steps.filter((step) => jobs.includes(step.job ?? step.name)).map(({ name }) => name));
  // What a step needs comes before it.
  for (const { name, needs = [] } of steps.toReversed()) if (taken.has(name)) for (const need of needs) taken.add(need);
  return steps.filter(({ name }) => taken.has(name));
}

function stepOf(name: string, job: TaskFileJob, needs: readonly string[], combination: Combination): Step {
  const values = Object.entries(combination);
  const { requires, locks, secrets } = job;
  return {
    name: stepName(name, combination),
    task: taskOf(job, combination),
    ...(needs.length === 0 ? {} : { needs }),
    ...(job.env === undefined ? {} : { env: job.env }),
    ...(values.length === 0
      ? {}
      : {
          job: name,
          matrix: Object.fromEntries(values.map(([list, value]) => [`MATRIX_${list.toUpperCase()}`, value])),
        }),
    ...(job.timeouts === undefined ? {} : { timeouts: job.timeouts }),
    ...(job.on === undefined ? {} : { on: job.on }),
    ...(requires === undefined ? {} : { requires: filledRequires(requires, combination) }),
    ...(locks === undefined ? {} : { locks: filledList(listOf(locks), combination) }),
    ...(secrets === undefined ? {} : { secrets: listOf(secrets) }),
  };
}

/** Whether a step asks for something that belongs to a job of the lane, so that its file cannot be the steps of one run. */
export function asksForItsOwn({
  requires,
  locks,
  secrets,
  task,
}: Pick<Step, "requires" | "locks" | "secrets" | "task">): boolean {
  return task.kind === "effect" || [requires, locks, secrets].some((field) => field !== undefined);
}

/** What a deployment has to know to queue the steps of a file as jobs; null for a file that asks for nothing of the kind, whose steps are those of one run. */
export function expansionOf(file: TaskFile): Expansion | null {
  const jobs = Object.entries(file.jobs);
  if (!stepsOf(file).some(asksForItsOwn)) return null;
  return { jobs: Object.fromEntries(jobs.map(([name, job]) => [name, expandedJob(job)])) };
}

function expandedJob(job: TaskFileJob): Expansion["jobs"][string] {
  const { matrix, locks, secrets, effect, develop, packages } = job;
  const needs = [...needsOf(job)];
  const { planned, movesState } =
    typeof effect === "object"
      ? { planned: effect.plan !== undefined, movesState: effect.moveState === true }
      : { planned: false, movesState: false };
  const features = [
    ...(job.requires?.features ?? []),
    ...(develop === undefined && packages === undefined ? [] : ["nix"]),
  ];
  const requires = { ...job.requires, ...(features.length === 0 ? {} : { features }) };
  return {
    kind: job.shell !== undefined ? "shell" : job.build !== undefined ? "nix-build" : "effect",
    ...(needs.length === 0 ? {} : { needs }),
    ...(matrix === undefined ? {} : { matrix }),
    ...(Object.keys(requires).length === 0 ? {} : { requires }),
    ...(locks === undefined ? {} : { locks: [...listOf(locks)] }),
    ...(secrets === undefined ? {} : { secrets: [...listOf(secrets)] }),
    ...(planned ? { planned } : {}),
    ...(movesState ? { movesState } : {}),
  };
}

function taskOf({ shell = "", develop, packages, build, effect }: TaskFileJob, combination: Combination): Step["task"] {
  const fill = (template: string): string => filledIn(template, combination);
  if (effect !== undefined) {
    const { installable, ...scripts } = typeof effect === "string" ? { installable: effect } : effect;
    return { kind: "effect", installable: fill(installable), ...scripts };
  }
  if (build !== undefined)
    return { kind: "nix-build", installables: (typeof build === "string" ? [build] : build).map(fill) };
  return {
    kind: "shell",
    script: shell,
    ...(develop === undefined ? {} : { develop: fill(develop) }),
    ...(packages === undefined ? {} : { packages: packages.map(fill) }),
  };
}
