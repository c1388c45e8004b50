import * as z from "zod";
import { commitSchema, deploymentIdSchema, jobIdSchema, namespaceIdSchema, poolNameSchema, refSchema, runIdSchema, runnerIdSchema, sha256Schema, timeSchema } from "./ids.ts";
import { LIMITS } from "./limits.ts";

const name = z.string().min(1).max(LIMITS.nameCharacters);
const label = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._:/=-]{0,127}$/, "1 to 128 of A-Z, a-z, 0-9 and . _ : / = -, starting with a letter or digit");

/** How well a run is kept from its machine, weakest first. What each level guarantees stands in `docs/runner.md`. */
export const ISOLATION_LEVELS = ["process-group", "cgroup", "userns", "bwrap", "container"] as const;
export const isolationSchema = z.enum(ISOLATION_LEVELS);
export type IsolationLevel = z.output<typeof isolationSchema>;

/** Something that Nix can build: a flake reference with attribute, or an attribute of the checkout (`.#name`). Never an option. */
export const installableSchema = z.string().max(1_000).regex(/^[^-\s\p{Cc}][^\s\p{Cc}]*$/u, "an installable without white space that does not start with a hyphen");

/** A script for `bash -euo pipefail`; with `develop` inside `nix develop`, with `packages` inside `nix shell`. */
export const shellTaskSchema = z.strictObject({
  kind: z.literal("shell"),
  script: z.string().min(1).max(LIMITS.scriptCharacters),
  develop: installableSchema.optional(),
  packages: z.array(installableSchema).min(1).max(64).optional(),
});

/** Derivations to realise. */
export const nixBuildTaskSchema = z.strictObject({ kind: z.literal("nix-build"), installables: z.array(installableSchema).min(1).max(64) });

/** An impure job: build the derivation's inputs, then run it with network. Needs a runner with the feature `effects`. */
export const effectTaskSchema = z.strictObject({ kind: z.literal("effect"), installable: installableSchema });

/** The task file at the commit decides; `task` picks one entry of it. */
export const repositoryTaskSchema = z.strictObject({ kind: z.literal("repository"), task: name.optional() });

export const taskSchema = z.discriminatedUnion("kind", [shellTaskSchema, nixBuildTaskSchema, effectTaskSchema, repositoryTaskSchema]).meta({ id: "Task" });
/** What a job does. */
export type Task = z.output<typeof taskSchema>;

/** Where a repository can be fetched. `rad:` and `https:` everywhere, `file:` only where the runner allows it. */
export const repositoryUrlSchema = z.string().max(1_000).regex(/^(?:rad:z[1-9A-HJ-NP-Za-km-z]{20,64}|rad:\/\/[^\s\p{Cc}]+|https:\/\/[^\s\p{Cc}]+|file:\/\/\/[^\s\p{Cc}]+)$/u, "a rad:, https: or file: URL");

/** The commit that a job is about. `repository` names it, `urls` are further places that have it. */
export const sourceSchema = z.strictObject({ repository: repositoryUrlSchema, commit: commitSchema, ref: refSchema.optional(), urls: z.array(repositoryUrlSchema).max(8).optional() }).meta({ id: "Source" });
export type Source = z.output<typeof sourceSchema>;

/** What a runner must offer. */
export const requiresSchema = z
  .strictObject({
    systems: z.array(label).max(8).optional(),
    features: z.array(label).max(LIMITS.labelsCount).optional(),
    labels: z.array(label).max(LIMITS.labelsCount).optional(),
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

export const jsonSchema: z.ZodType<unknown> = z.json();

/** The body of a submit. Only `task` is required. */
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
    retry: z.strictObject({ attempts: z.int().min(1).max(LIMITS.attemptsMax).optional(), onFailure: z.boolean().optional() }).optional(),
    env: z.record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/), z.string().max(LIMITS.environmentCharacters)).refine((env) => Object.keys(env).length <= LIMITS.environmentCount, `at most ${LIMITS.environmentCount} variables`).optional(),
    labels: z.record(label, z.string().max(LIMITS.nameCharacters)).refine((labels) => Object.keys(labels).length <= LIMITS.labelsCount, `at most ${LIMITS.labelsCount} labels`).optional(),
    dedupeKey: z.string().min(1).max(LIMITS.keyCharacters).optional(),
    debounce: z.strictObject({ quietMs: duration(LIMITS.debounceMaxMs), maxMs: duration(LIMITS.debounceMaxMs) }).optional(),
    hold: z.boolean().optional(),
    summary: z.string().max(200).optional(),
  })
  .refine((body) => body.task.kind !== "repository" || body.source !== undefined, { path: ["source"], message: "a repository task needs a source" })
  .meta({ id: "SubmitBody" });
export type SubmitBody = z.output<typeof submitBodySchema>;

export const JOB_STATES = ["held", "queued", "assigned", "running", "cancelling", "succeeded", "failed", "cancelled", "superseded", "skipped", "unknown"] as const;
/** States of a job; `docs/state-machine.md` draws the edges. */
export const jobStateSchema = z.enum(JOB_STATES);
export type JobState = z.output<typeof jobStateSchema>;

/** Final states are absorbing, but for `unknown`, which a person resolves into another final state. */
export const FINAL_JOB_STATES = ["succeeded", "failed", "cancelled", "superseded", "skipped", "unknown"] as const satisfies readonly JobState[];

/** True when nothing more happens to the job by itself. */
export function isFinalJobState(state: JobState): boolean {
  return (FINAL_JOB_STATES as readonly JobState[]).includes(state);
}

export const RUN_STATES = ["assigned", "running", "succeeded", "failed", "cancelled", "lost"] as const;
/** States of a run. */
export const runStateSchema = z.enum(RUN_STATES);
export type RunState = z.output<typeof runStateSchema>;

export const DEPLOYMENT_STATES = ["idle", "deploying", "active", "destroying"] as const;
/** What is live in a deployment, kept apart from what is happening. */
export const deploymentStateSchema = z.enum(DEPLOYMENT_STATES);
export type DeploymentState = z.output<typeof deploymentStateSchema>;

export const PHASES = ["queued", "assigned", "setup", "evaluating", "building", "applying", "signing"] as const;
/** What is happening to a job. */
export const phaseSchema = z.enum(PHASES);
export type Phase = z.output<typeof phaseSchema>;

/** Why a job or run ended, or was sent back: a code for programs and a sentence for people. */
export const REASON_CODES = [
  "exit-code", "evaluation-failed", "build-failed", "hash-mismatch", "not-deterministic", "log-limit", "effect-failed", "nothing-to-do",
  "run-timeout", "silence-timeout", "queue-timeout", "out-of-memory", "source-unavailable", "task-invalid", "refused", "setup-failed",
  "runner-lost", "not-acknowledged", "runner-stopped", "cancelled", "superseded", "deleted", "rejected", "resolved", "unchanged",
] as const;
export const reasonSchema = z.object({ code: z.enum(REASON_CODES), detail: z.string().max(LIMITS.textCharacters), derivation: z.string().max(300).optional() }).meta({ id: "Reason" });
export type Reason = z.output<typeof reasonSchema>;

export const WAITING_REASONS = ["position", "no-runner", "runners-busy", "runners-drained", "approval", "debounce", "backoff", "stopping-previous"] as const;
/** Why a job has not started: the reason, what is needed, the runner that comes nearest and what it lacks. */
export const waitingSchema = z
  .object({
    reason: z.enum(WAITING_REASONS),
    detail: z.string(),
    needs: requiresSchema.nullable(),
    nearest: z.object({ runner: runnerIdSchema, lacks: z.array(z.string()) }).nullable(),
    position: z.int().min(0),
    etaMs: z.int().nullable(),
  })
  .meta({ id: "Waiting" });
export type Waiting = z.output<typeof waitingSchema>;

/** Derivation counters of a build, from the derivation graph (never from Nix's own `expected`). */
export const progressSchema = z
  .object({ total: z.int(), done: z.int(), running: z.int(), failed: z.int(), cached: z.int(), queued: z.int(), bytes: z.number().optional(), expectedBytes: z.number().optional() })
  .meta({ id: "Progress" });
export type Progress = z.output<typeof progressSchema>;

/** A job as lists, events and answers show it. Events carry it whole, so a reader's reducer is an assignment. */
export const jobViewSchema = z
  .object({
    id: jobIdSchema,
    namespace: namespaceIdSchema,
    deployment: deploymentIdSchema,
    state: jobStateSchema,
    phase: phaseSchema.nullable(),
    kind: z.enum(["shell", "nix-build", "effect", "repository"]),
    type: z.string().nullable(),
    mode: modeSchema,
    interrupt: interruptSchema,
    priority: prioritySchema,
    teardown: z.boolean(),
    summary: z.string().nullable(),
    labels: z.record(z.string(), z.string()),
    source: sourceSchema.nullable(),
    actor: z.string(),
    createdAt: timeSchema,
    startedAt: timeSchema.nullable(),
    finishedAt: timeSchema.nullable(),
    attempt: z.int(),
    run: runIdSchema.nullable(),
    runner: runnerIdSchema.nullable(),
    reason: reasonSchema.nullable(),
    supersededBy: jobIdSchema.nullable(),
    rerunOf: jobIdSchema.nullable(),
    waiting: waitingSchema.nullable(),
    progress: progressSchema.nullable(),
  })
  .meta({ id: "Job" });
export type JobView = z.output<typeof jobViewSchema>;

/** One output of a build. `narHash` is the lower-case hex SHA-256 of the NAR. */
export const outputSchema = z
  .object({ name: z.string().max(LIMITS.nameCharacters), path: z.string().max(500), drvPath: z.string().max(500), narHash: sha256Schema, narSize: z.number(), references: z.array(z.string().max(500)).max(LIMITS.arrayItems), signatures: z.array(z.string().max(300)).max(16) })
  .meta({ id: "Output" });
export type Output = z.output<typeof outputSchema>;

export const LOG_STATES = ["open", "complete", "truncated", "mismatch", "expired"] as const;

/** A run as answers show it. */
export const runViewSchema = z
  .object({
    id: runIdSchema,
    job: jobIdSchema,
    deployment: deploymentIdSchema,
    attempt: z.int(),
    epoch: z.int(),
    state: runStateSchema,
    phase: phaseSchema.nullable(),
    runner: runnerIdSchema,
    isolation: isolationSchema.nullable(),
    assignedAt: timeSchema,
    startedAt: timeSchema.nullable(),
    finishedAt: timeSchema.nullable(),
    exitCode: z.int().nullable(),
    reason: reasonSchema.nullable(),
    survivorsKilled: z.int().nullable(),
    log: z.object({ state: z.enum(LOG_STATES), bytes: z.int(), sha256: sha256Schema.nullable() }),
    outputs: z.array(outputSchema),
    statementCount: z.int(),
  })
  .meta({ id: "Run" });
export type RunView = z.output<typeof runViewSchema>;

/** A job with what was asked for and all its runs. */
export const jobDetailSchema = z.object({ job: jobViewSchema, spec: submitBodySchema, runs: z.array(runViewSchema) }).meta({ id: "JobDetail" });
export type JobDetail = z.output<typeof jobDetailSchema>;

/** A deployment as lists, events and answers show it. */
export const deploymentViewSchema = z
  .object({
    id: deploymentIdSchema,
    namespace: namespaceIdSchema,
    state: deploymentStateSchema,
    revision: z.int(),
    activeJob: jobIdSchema.nullable(),
    currentJob: jobIdSchema.nullable(),
    pendingCount: z.int(),
    lastResult: z.object({ job: jobIdSchema, state: jobStateSchema, at: timeSchema }).nullable(),
    createdAt: timeSchema,
    updatedAt: timeSchema,
  })
  .meta({ id: "Deployment" });
export type DeploymentView = z.output<typeof deploymentViewSchema>;

/** A deployment with its jobs that are not final and its newest final ones: what a watcher starts from. */
export const deploymentSnapshotSchema = z.object({ deployment: deploymentViewSchema, jobs: z.array(jobViewSchema), cursor: z.string() }).meta({ id: "DeploymentSnapshot" });
export type DeploymentSnapshot = z.output<typeof deploymentSnapshotSchema>;

export const DERIVATION_STATES = ["planned", "building", "waiting", "substituting", "built", "cached", "substituted", "failed", "dependency-failed", "timeout", "log-limit", "hash-mismatch", "not-deterministic", "cancelled", "lost"] as const;
/** One derivation of a run: state, phase and times. */
export const derivationSchema = z
  .object({ drv: z.string().max(300), name: z.string().max(250), state: z.enum(DERIVATION_STATES), phase: z.string().max(64).nullish(), exitCode: z.int().nullish(), reason: z.string().max(LIMITS.textCharacters).nullish(), startedAt: timeSchema.nullish(), endedAt: timeSchema.nullish() })
  .meta({ id: "Derivation" });
export type Derivation = z.output<typeof derivationSchema>;
