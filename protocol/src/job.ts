import * as z from "zod";
import {
  deploymentIdSchema,
  jobIdSchema,
  namespaceIdSchema,
  runIdSchema,
  runnerIdSchema,
  sha256Schema,
  timeSchema,
} from "./ids.ts";
import { signedApprovalSchema, strangerViewSchema } from "./approval.ts";
import { LIMITS } from "./limits.ts";
import { lockNameSchema, lockWaitSchema } from "./locks.ts";
import { changeCountsSchema, runChangesSchema } from "./run-changes.ts";
import { scheduleNameSchema, scheduleViewSchema } from "./schedules.ts";
import {
  interruptSchema,
  isolationSchema,
  modeSchema,
  prioritySchema,
  requiresSchema,
  sourceSchema,
  submitBodySchema,
} from "./submit.ts";
import { equivocationViewSchema, signedSummarySchema, verdictViewSchema } from "./verdict-view.ts";

export const JOB_STATES = [
  "held",
  "queued",
  "assigned",
  "running",
  "cancelling",
  "succeeded",
  "failed",
  "cancelled",
  "superseded",
  "skipped",
  "unknown",
] as const;
/** States of a job; `docs/state-machine.md` draws the edges. */
export const jobStateSchema = z.enum(JOB_STATES);
export type JobState = z.output<typeof jobStateSchema>;

/** Final states are absorbing, but for `unknown`, which a person resolves into another final state. */
export const FINAL_JOB_STATES = [
  "succeeded",
  "failed",
  "cancelled",
  "superseded",
  "skipped",
  "unknown",
] as const satisfies readonly JobState[];

/** True when nothing more happens to the job by itself. */
export function isFinalJobState(state: JobState): boolean {
  return (FINAL_JOB_STATES as readonly JobState[]).includes(state);
}

/**
 * How a job stands together with the jobs that its task file became: as itself while it has not succeeded, `running` while any of them has not ended, else
 * as the worst of them. Steps that were skipped take nothing away: what they needed failed, or nothing has changed, or they are not for a stranger.
 */
export function wholeState(job: Pick<JobView, "state">, steps: readonly Pick<JobView, "state">[]): JobState {
  if (job.state !== "succeeded") return job.state;
  if (steps.some(({ state }) => !isFinalJobState(state))) return "running";
  return WORST_FIRST.find((state) => steps.some((step) => step.state === state)) ?? "succeeded";
}
const WORST_FIRST: readonly JobState[] = ["unknown", "failed", "cancelled", "superseded"];

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
  "exit-code",
  "evaluation-failed",
  "build-failed",
  "hash-mismatch",
  "not-deterministic",
  "log-limit",
  "effect-failed",
  "nothing-to-do",
  "run-timeout",
  "silence-timeout",
  "queue-timeout",
  "out-of-memory",
  "source-unavailable",
  "task-invalid",
  "refused",
  "setup-failed",
  "runner-lost",
  "not-acknowledged",
  "runner-stopped",
  "cancelled",
  "superseded",
  "deleted",
  "rejected",
  "resolved",
  "unchanged",
] as const;
export const reasonSchema = z
  .object({
    code: z.enum(REASON_CODES),
    detail: z.string().max(LIMITS.textCharacters),
    /** Store path of the derivation that failed first. */
    derivation: z.string().max(300).optional(),
    /** The last lines of that derivation's log, or the trace of an evaluation's error. */
    lines: z.array(z.string().max(LIMITS.reasonLineCharacters)).max(LIMITS.reasonLines).optional(),
    /** The limit that the run reached, by a word: `memory`, `tasks`, `workspace`. */
    limit: z.string().max(32).optional(),
    /** The job of a task file that was needed and did not succeed, for one that was not run. */
    need: z.string().max(LIMITS.nameCharacters).optional(),
    /** With a quorum: what its votes came to, where the code alone does not say it. */
    verdict: z.string().max(32).optional(),
  })
  .meta({ id: "Reason" });
export type Reason = z.output<typeof reasonSchema>;

export const WAITING_REASONS = [
  "position",
  "no-runner",
  "runners-busy",
  "runners-drained",
  "approval",
  "debounce",
  "backoff",
  "stopping-previous",
] as const;
/** Why a job has not started: the reason, what is needed, the runner that comes nearest and what it lacks. */
export const waitingSchema = z
  .object({
    reason: z.enum(WAITING_REASONS),
    detail: z.string(),
    needs: requiresSchema.nullable(),
    nearest: z.object({ runner: runnerIdSchema, lacks: z.array(z.string()) }).nullable(),
    position: z.int().min(0),
    etaMs: z.int().nullable(),
    /** There when it is a lock that the job waits for; the reason is `position` then, which readers of version 1 know. */
    lock: lockWaitSchema.optional(),
  })
  .meta({ id: "Waiting" });
export type Waiting = z.output<typeof waitingSchema>;

/** Derivation counters of a build, from the derivation graph (never from Nix's own `expected`). */
export const progressSchema = z
  .object({
    total: z.int(),
    done: z.int(),
    running: z.int(),
    failed: z.int(),
    cached: z.int(),
    queued: z.int(),
    bytes: z.number().optional(),
    expectedBytes: z.number().optional(),
  })
  .meta({ id: "Progress" });
export type Progress = z.output<typeof progressSchema>;

/** How far a quorum is: its runs that live, its votes, how many of them agree of how many that are needed, and what they come to so far. */
export const quorumViewSchema = z
  .object({
    replicas: z.int(),
    agree: z.int(),
    distinct: z.enum(["key", "operator"]),
    liveCount: z.int(),
    voteCount: z.int(),
    openCount: z.int(),
    agreeing: z.int(),
    needed: z.int(),
    verdict: z.string(),
  })
  .meta({ id: "QuorumView" });
export type QuorumView = z.output<typeof quorumViewSchema>;

/** The plan of an effect: the SHA-256 of its text, the run that made it, and who has approved exactly this one. */
export const planViewSchema = z
  .object({
    sha256: sha256Schema,
    run: runIdSchema,
    approvedBy: z.string().nullable(),
    approvedAt: timeSchema.nullable(),
  })
  .meta({ id: "Plan" });
export type PlanView = z.output<typeof planViewSchema>;

/** Whose step a job is: the job that read the task file, the step's name, and the jobs of the file whose steps have to succeed before it. */
export const stepViewSchema = z
  .object({ parent: jobIdSchema, name: z.string(), needs: z.array(z.string()) })
  .meta({ id: "Step" });
export type StepView = z.output<typeof stepViewSchema>;

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
    /** There for a job of somebody who is neither delegate nor named by a rule. */
    stranger: strangerViewSchema.optional(),
    quorum: quorumViewSchema.optional(),
    /** There for a job that names locks, with whether it has them now: a job that ended `unknown` keeps them until somebody says how it ended. */
    locks: z.object({ names: z.array(lockNameSchema), held: z.boolean() }).optional(),
    plan: planViewSchema.optional(),
    /** What its last run has changed, where that is known. */
    changes: changeCountsSchema.optional(),
    /** There for a job of a schedule: its name, and the job that it repeats; null where somebody asked for it without waiting. */
    schedule: z.object({ name: scheduleNameSchema, job: jobIdSchema.nullable() }).optional(),
    /** There for a job that a task file became a part of. */
    step: stepViewSchema.optional(),
    /** There for a job whose task file became jobs of the lane: how many. */
    stepCount: z.int().optional(),
    /** There when its runner did it without the broker, and told of it afterwards. */
    standalone: z.boolean().optional(),
  })
  .meta({ id: "Job" });
export type JobView = z.output<typeof jobViewSchema>;

/** One output of a build. `narHash` is the lower-case hex SHA-256 of the NAR. */
export const outputSchema = z
  .object({
    name: z.string().max(LIMITS.nameCharacters),
    path: z.string().max(500),
    drvPath: z.string().max(500),
    narHash: sha256Schema,
    narSize: z.number(),
    references: z.array(z.string().max(500)).max(LIMITS.arrayItems),
    signatures: z.array(z.string().max(300)).max(16),
  })
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
    /** 0 for a run without a lease. */
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
    redactions: z.record(z.string(), z.int()).optional(),
    changes: runChangesSchema.optional(),
    log: z.object({ state: z.enum(LOG_STATES), bytes: z.int(), sha256: sha256Schema.nullable() }),
    outputs: z.array(outputSchema),
    statementCount: z.int(),
  })
  .meta({ id: "Run" });
export type RunView = z.output<typeof runViewSchema>;

/** A job with what was asked for, all its runs, and what their statements come to where that was decided. */
export const jobDetailSchema = z
  .object({
    job: jobViewSchema,
    spec: submitBodySchema,
    runs: z.array(runViewSchema),
    /** The jobs that its task file became, in their order, of those that are kept. */
    steps: z
      .array(jobViewSchema.pick({ id: true, state: true, kind: true, reason: true }).extend({ name: z.string() }))
      .optional(),
    /** The signed approval of a stranger's job (`verifyApproval`). */
    approval: signedApprovalSchema.optional(),
    /** The text of the job's plan, as the runner that made it has signed it. */
    planText: z.string().optional(),
    verdict: verdictViewSchema.nullable().optional(),
    /** What the broker signed about the verdict (`verifySummary`). */
    summary: signedSummarySchema.optional(),
    /** Keys that contradicted themselves, each with the two envelopes that prove it (`proveEquivocation`). */
    equivocations: z.array(equivocationViewSchema).optional(),
  })
  .meta({ id: "JobDetail" });
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
    /** What the clock asks for; missing where that is nothing. */
    schedules: z.array(scheduleViewSchema).optional(),
  })
  .meta({ id: "Deployment" });
export type DeploymentView = z.output<typeof deploymentViewSchema>;

/** A deployment with its jobs that are not final and its newest final ones: what a watcher starts from. */
export const deploymentSnapshotSchema = z
  .object({ deployment: deploymentViewSchema, jobs: z.array(jobViewSchema), cursor: z.string() })
  .meta({ id: "DeploymentSnapshot" });
export type DeploymentSnapshot = z.output<typeof deploymentSnapshotSchema>;

export const DERIVATION_STATES = [
  "planned",
  "building",
  "waiting",
  "substituting",
  "built",
  "cached",
  "substituted",
  "failed",
  "dependency-failed",
  "timeout",
  "log-limit",
  "hash-mismatch",
  "not-deterministic",
  "cancelled",
  "lost",
] as const;
/** One derivation of a run: state, phase and times. */
export const derivationSchema = z
  .object({
    drv: z.string().max(300),
    name: z.string().max(250),
    state: z.enum(DERIVATION_STATES),
    phase: z.string().max(64).nullish(),
    exitCode: z.int().nullish(),
    reason: z.string().max(LIMITS.textCharacters).nullish(),
    /** What the plan says has to happen with it, before anything did. */
    need: z.enum(["build", "fetch", "cached"]).optional(),
    startedAt: timeSchema.nullish(),
    endedAt: timeSchema.nullish(),
  })
  .meta({ id: "Derivation" });
export type Derivation = z.output<typeof derivationSchema>;
