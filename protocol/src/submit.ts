import * as z from "zod";
import { commitSchema, poolNameSchema, refSchema, type RunnerId, runnerIdSchema } from "./ids.ts";
import { LIMITS } from "./limits.ts";
import { locksSchema } from "./locks.ts";
import { scheduleNameSchema } from "./schedules.ts";

const name = z.string().min(1).max(LIMITS.nameCharacters);
/** A system, a feature or a label that a job requires; the names of a job's labels are such words too. */
export const requirementSchema = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9._:/=-]{0,127}$/,
    "1 to 128 of A-Z, a-z, 0-9 and . _ : / = -, starting with a letter or digit",
  );

/** How well a run is kept from its machine, weakest first. What each level guarantees stands in `docs/runner.md`. */
export const ISOLATION_LEVELS = ["process-group", "cgroup", "userns", "bwrap", "container"] as const;
export const isolationSchema = z.enum(ISOLATION_LEVELS);
export type IsolationLevel = z.output<typeof isolationSchema>;

/** Something that Nix can build: a flake reference with attribute, or an attribute of the checkout (`.#name`). Never an option. */
export const installableSchema = z
  .string()
  .max(1_000)
  .regex(/^[^-\s\p{Cc}][^\s\p{Cc}]*$/u, "an installable without white space that does not start with a hyphen");

/** A script for `bash -euo pipefail`; with `develop` inside `nix develop`, with `packages` inside `nix shell`. */
export const shellTaskSchema = z.strictObject({
  kind: z.literal("shell"),
  script: z.string().min(1).max(LIMITS.scriptCharacters),
  develop: installableSchema.optional(),
  packages: z.array(installableSchema).min(1).max(64).optional(),
});

/** Derivations to realise. */
export const nixBuildTaskSchema = z.strictObject({
  kind: z.literal("nix-build"),
  installables: z.array(installableSchema).min(1).max(64),
});

/** What a runner offers that can keep effects in a sandbox, and what each effect needs. */
export const EFFECTS_FEATURE = "effects";

/**
 * An impure job: first it builds, without network and secrets, then it applies, with both, and is never begun twice by itself. Without `script` the
 * installable is an effect as for Hercules CI: its inputs are built and its builder is run. With one it is built, and the script (`bash -euo
 * pipefail`) applies. `plan` is a script whose standard output tells what applying would do: the job is held then, until somebody has approved
 * exactly that text. `moveState` lets another runner take it than the one that keeps the state files of this deployment's effects.
 */
export const effectTaskSchema = z.strictObject({
  kind: z.literal("effect"),
  installable: installableSchema,
  script: z.string().min(1).max(LIMITS.scriptCharacters).optional(),
  plan: z.string().min(1).max(LIMITS.scriptCharacters).optional(),
  moveState: z.boolean().optional(),
});

/** What a job of a task file is. */
export const stepKindSchema = z.enum(["shell", "nix-build", "effect"]);

/**
 * One step of a task file: a job by its name, and a combination of its matrix. What it does is read from the commit alone; `kind`, and of an effect whether
 * it has a plan and moves its state, say what its runner has to be able to do, and have to be what the file says.
 */
export const repositoryStepSchema = z
  .strictObject({
    job: name,
    matrix: z.record(name, z.string().min(1).max(LIMITS.matrixValueCharacters)).optional(),
    kind: stepKindSchema,
    planned: z.literal(true).optional(),
    movesState: z.literal(true).optional(),
  })
  .meta({ id: "RepositoryStep" });
export type RepositoryStep = z.output<typeof repositoryStepSchema>;

/**
 * The task file at the commit decides what is done for a push; `task` picks one job of it instead, and `schedule` the jobs of a schedule, with what they need. `effects` lets the file ask for effects, which whoever can push may
 * then write. `step` runs one step alone: what a deployment queues for each step of a file whose jobs ask for something of their own.
 */
export const repositoryTaskSchema = z.strictObject({
  kind: z.literal("repository"),
  task: name.optional(),
  schedule: scheduleNameSchema.optional(),
  effects: z.boolean().optional(),
  step: repositoryStepSchema.optional(),
});

export const taskSchema = z
  .discriminatedUnion("kind", [shellTaskSchema, nixBuildTaskSchema, effectTaskSchema, repositoryTaskSchema])
  .meta({ id: "Task" });
/** What a job does. */
export type Task = z.output<typeof taskSchema>;

/** Whether a task changes the world, so that it is not begun twice. */
function isEffect(task: Task): boolean {
  return task.kind === "effect" || (task.kind === "repository" && task.step?.kind === "effect");
}

/** Where a repository can be fetched. `rad:` and `https:` everywhere, `file:` only where the runner allows it. */
export const repositoryUrlSchema = z
  .string()
  .max(1_000)
  .regex(
    /^(?:rad:z[1-9A-HJ-NP-Za-km-z]{20,64}|rad:\/\/[^\s\p{Cc}]+|https:\/\/[^\s\p{Cc}]+|file:\/\/\/[^\s\p{Cc}]+)$/u,
    "a rad:, https: or file: URL",
  );

/** The commit that a job is about. `repository` names it, `urls` are further places that have it. */
export const sourceSchema = z
  .strictObject({
    repository: repositoryUrlSchema,
    commit: commitSchema,
    ref: refSchema.optional(),
    urls: z.array(repositoryUrlSchema).max(8).optional(),
  })
  .meta({ id: "Source" });
export type Source = z.output<typeof sourceSchema>;

/** What a runner must offer. */
export const requiresSchema = z
  .strictObject({
    systems: z.array(requirementSchema).max(LIMITS.systemsCount).optional(),
    features: z.array(requirementSchema).max(LIMITS.labelsCount).optional(),
    labels: z.array(requirementSchema).max(LIMITS.labelsCount).optional(),
    isolation: isolationSchema.optional(),
    pool: poolNameSchema.optional(),
  })
  .meta({ id: "Requires" });
export type Requires = z.output<typeof requiresSchema>;

export const MODES = ["queue", "replace", "latest", "reject"] as const;
/** What a submit does to a busy deployment. */
export const modeSchema = z.enum(MODES);
export type Mode = z.output<typeof modeSchema>;

export const INTERRUPTS = ["before-apply", "always", "never"] as const;
/** Whether a replacing job may stop the running one. */
export const interruptSchema = z.enum(INTERRUPTS);
export type Interrupt = z.output<typeof interruptSchema>;

export const PRIORITIES = ["low", "normal", "high", "urgent"] as const;
/** Priority class; waiting jobs age upwards so that none starves. */
export const prioritySchema = z.enum(PRIORITIES);
export type Priority = z.output<typeof prioritySchema>;

const duration = (max: number): z.ZodInt => z.int().min(1).max(max);

export const timeoutsSchema = z
  .strictObject({
    queueMs: duration(LIMITS.queueMaxMs).optional(),
    acknowledgeMs: duration(10 * 60_000).optional(),
    runMs: duration(LIMITS.runMaxMs).optional(),
    silenceMs: duration(LIMITS.silenceMaxMs).optional(),
    graceMs: z.int().min(0).max(LIMITS.graceMaxMs).optional(),
  })
  .meta({ id: "Timeouts" });
/** The four time-outs and the grace of a cancel, ms. */
export type Timeouts = z.output<typeof timeoutsSchema>;

/**
 * What a job may take, below what its runner lets any job have: memory of all its processes, processes and threads at a time, what its workspace
 * holds on disk, and its log, of which head and tail are kept beyond it. How well each is kept depends on the machine (`docs/isolation.md`).
 */
export const jobLimitsSchema = z
  .strictObject({
    memoryBytes: z.int().min(LIMITS.jobMemoryBytes).optional(),
    taskCount: z.int().min(LIMITS.jobTasks).max(4_194_304).optional(),
    workspaceBytes: z.int().min(0).optional(),
    logBytes: z.int().min(LIMITS.jobLogBytes).max(LIMITS.logBytes).optional(),
  })
  .meta({ id: "JobLimits" });
export type JobLimits = z.output<typeof jobLimitsSchema>;

export const jsonSchema: z.ZodType<unknown> = z.json();

/** A secret's name is the name of its file: it starts with no dot and holds no slash. */
export const secretNameSchema = z
  .string()
  .regex(
    /^[A-Za-z_][A-Za-z0-9_.-]{0,63}$/,
    "1 to 64 of A-Z, a-z, 0-9, underscore, dot and hyphen, starting with a letter or underscore",
  );

/** A secret of a job: sealed for it (`box`, an age file in base64, and the `runners` that can open it), or by name alone one that the namespace stores. */
export const jobSecretSchema = z
  .strictObject({
    name: secretNameSchema,
    box: z.base64().min(1).max(LIMITS.secretBoxCharacters).optional(),
    runners: z.array(runnerIdSchema).min(1).max(LIMITS.secretRunners).optional(),
  })
  .refine(({ box, runners }) => (box === undefined) === (runners === undefined), {
    message: "a box comes with the runners that it is sealed to",
  })
  .meta({ id: "JobSecret" });
export type JobSecret = z.output<typeof jobSecretSchema>;

/** The runners that can open every box of a job's secrets; null when no box says who can, so that any may take the job. */
export function runnersAble(secrets: readonly JobSecret[]): RunnerId[] | null {
  const [first, ...rest] = secrets.flatMap(({ runners }) => (runners === undefined ? [] : [runners]));
  return first?.filter((runner) => rest.every((runners) => runners.includes(runner))) ?? null;
}

/**
 * The same work by several runners: `replicas` of them, each with another key, or with `distinct: "operator"` of another operator of the trust
 * policy; `agree` of their results have to be the same, output by output.
 */
export const quorumSchema = z
  .strictObject({
    replicas: z.int().min(1).max(LIMITS.quorumReplicas),
    agree: z.int().min(1).max(LIMITS.quorumReplicas),
    distinct: z.enum(["key", "operator"]).optional(),
  })
  .refine(({ replicas, agree }) => agree <= replicas, { path: ["agree"], message: "more than there are replicas" })
  .meta({ id: "Quorum" });
export type Quorum = z.output<typeof quorumSchema>;

/** Environment variables that a job asks for. Which names it cannot have stands in `docs/runner.md`. */
export const environmentSchema = z
  .record(
    z
      .string()
      .regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/, "a name of letters, digits and underscores that starts with no digit"),
    z.string().max(LIMITS.environmentCharacters),
  )
  .refine((env) => Object.keys(env).length <= LIMITS.environmentCount, `at most ${LIMITS.environmentCount} variables`);

/**
 * The body of a submit. Only `task` is required. Scripts find `configuration`, any JSON, in the file that `$PLUMULE_CONFIGURATION` names, and
 * `type` in `$PLUMULE_TYPE`; an installable that is a function is called with the file as its argument `configuration`.
 */
export const submitBodySchema = z
  .strictObject({
    task: taskSchema,
    source: sourceSchema.optional(),
    configuration: jsonSchema.optional(),
    type: name.optional(),
    mode: modeSchema.optional(),
    interrupt: interruptSchema.optional(),
    priority: prioritySchema.optional(),
    requires: requiresSchema.optional(),
    timeouts: timeoutsSchema.optional(),
    limits: jobLimitsSchema.optional(),
    /** How long the workspace is to be kept when the job has failed, as far as its runner lets jobs ask for it; 0 for not at all. */
    keepFailedMs: z.int().min(0).max(LIMITS.keepFailedMaxMs).optional(),
    retry: z
      .strictObject({ attempts: z.int().min(1).max(LIMITS.attemptsMax).optional(), onFailure: z.boolean().optional() })
      .optional(),
    env: environmentSchema.optional(),
    quorum: quorumSchema.optional(),
    /** Ends the job as `skipped` when it evaluates to the very derivations of the deployment's last success, made by an equal task and configuration. */
    skipUnchanged: z.boolean().optional(),
    locks: locksSchema.optional(),
    secrets: z
      .array(jobSecretSchema)
      .min(1)
      .max(LIMITS.jobSecrets)
      .refine((secrets) => new Set(secrets.map((secret) => secret.name)).size === secrets.length, "a name stands twice")
      .optional(),
    labels: z
      .record(requirementSchema, z.string().max(LIMITS.nameCharacters))
      .refine((labels) => Object.keys(labels).length <= LIMITS.labelsCount, `at most ${LIMITS.labelsCount} labels`)
      .optional(),
    dedupeKey: z.string().min(1).max(LIMITS.keyCharacters).optional(),
    debounce: z
      .strictObject({ quietMs: duration(LIMITS.debounceMaxMs), maxMs: duration(LIMITS.debounceMaxMs) })
      .optional(),
    hold: z.boolean().optional(),
    summary: z.string().max(200).optional(),
  })
  .refine((body) => body.task.kind !== "repository" || body.source !== undefined, {
    path: ["source"],
    message: "a repository task needs a source",
  })
  .refine(({ task }) => task.kind !== "repository" || task.task === undefined || task.schedule === undefined, {
    path: ["task", "schedule"],
    message: "a schedule says itself which jobs are run",
  })
  .refine(({ task, quorum }) => quorum === undefined || !isEffect(task), {
    path: ["quorum"],
    message: "an effect changes the world once; it cannot be repeated to compare",
  })
  .refine(
    ({ task, skipUnchanged }) => skipUnchanged !== true || task.kind === "nix-build" || task.kind === "repository",
    {
      path: ["skipUnchanged"],
      message: "only what Nix builds is known to be the same without being run",
    },
  )
  .refine(({ quorum, skipUnchanged }) => skipUnchanged !== true || quorum === undefined, {
    path: ["skipUnchanged"],
    message: "a quorum compares builds; skipped ones cannot be compared",
  })
  .refine(({ secrets = [] }) => runnersAble(secrets)?.length !== 0, {
    path: ["secrets"],
    message: "the secrets have no runner in common that could open them all",
  })
  .meta({ id: "SubmitBody" });
export type SubmitBody = z.output<typeof submitBodySchema>;
