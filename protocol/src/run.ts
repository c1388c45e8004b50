import * as z from "zod";
import {
  deploymentIdSchema,
  jobIdSchema,
  namespaceIdSchema,
  poolNameSchema,
  runIdSchema,
  runnerIdSchema,
  sha256Schema,
  timeSchema,
  uuidSchema,
} from "./ids.ts";
import {
  derivationSchema,
  jobStateSchema,
  outputSchema,
  phaseSchema,
  progressSchema,
  reasonSchema,
  waitingSchema,
} from "./job.ts";
import { runChangesSchema } from "./run-changes.ts";
import { isolationSchema, secretNameSchema, submitBodySchema } from "./submit.ts";
import { LIMITS } from "./limits.ts";

const label = z.string().min(1).max(LIMITS.nameCharacters);

/** What a runner can do; matched against `requires`. */
export const offerSchema = z
  .strictObject({
    name: z.string().min(1).max(LIMITS.nameCharacters),
    systems: z.array(label).max(LIMITS.systemsCount),
    features: z.array(label).max(LIMITS.labelsCount),
    labels: z.array(label).max(LIMITS.labelsCount),
    isolation: isolationSchema,
    version: z.string().max(64),
    capacity: z.int().min(1).max(1_000),
  })
  .meta({ id: "Offer" });
export type Offer = z.output<typeof offerSchema>;

/**
 * A poll for work. `requestKey` is on the runner's disk before this is sent: the same key gets the same assignment.
 * `busy` is how many runs the runner holds now; `protocol` is the version it speaks.
 */
export const pollBodySchema = z
  .strictObject({
    requestKey: uuidSchema,
    protocol: z.int(),
    pool: poolNameSchema,
    offer: offerSchema,
    busy: z.int().min(0),
    waitMs: z.int().min(0).max(LIMITS.pollHoldMs).optional(),
    /** Number of the newest order that the runner has heard of, 0 for none; a runner that leaves it away is told none. */
    seenOrder: z.int().min(0).optional(),
  })
  .meta({ id: "PollBody" });
export type PollBody = z.output<typeof pollBodySchema>;

/** What a drained runner does when its runs have ended: it waits to be given work again, or its process leaves. */
export const DRAIN_ENDS = ["wait", "exit"] as const;

/** How a runner is to be drained. The runs that are at work when `deadlineMs` is over go back to the queue; without it they may take their time. */
export const drainBodySchema = z
  .strictObject({
    note: z.string().min(1).max(LIMITS.nameCharacters).optional(),
    deadlineMs: z.int().min(0).max(LIMITS.drainMaxMs).optional(),
    end: z.enum(DRAIN_ENDS).optional(),
  })
  .meta({ id: "DrainBody" });
export type DrainBody = z.output<typeof drainBodySchema>;

/**
 * What the broker wants of a runner, told once with a poll. `drain` null: it may work again. `deadlineMs` counts from the answer, so that no
 * clock has to agree with another.
 */
export const runnerOrderSchema = z
  .object({
    number: z.int(),
    drain: z
      .object({ note: z.string().nullable(), deadlineMs: z.int().nullable(), end: z.enum(DRAIN_ENDS) })
      .nullable(),
  })
  .meta({ id: "RunnerOrder" });
export type RunnerOrder = z.output<typeof runnerOrderSchema>;

/**
 * A lease with everything that the runner needs. Durations are relative: a runner measures them with a monotonic clock
 * from the moment the answer came. `leaseToken` is the bearer of all writes of this run, together with `epoch`.
 */
export const assignmentSchema = z
  .object({
    namespace: namespaceIdSchema,
    deployment: deploymentIdSchema,
    job: jobIdSchema,
    run: runIdSchema,
    attempt: z.int(),
    epoch: z.int(),
    leaseToken: z.string(),
    leaseMs: z.int(),
    acknowledgeMs: z.int(),
    requestKey: uuidSchema,
    spec: submitBodySchema,
    teardown: z.boolean(),
    /** An approved job of a stranger: no secrets, no signature for others' stores, and a builder id of its own. */
    untrusted: z.boolean().optional(),
    /** For a job with `skipUnchanged`: the deployment's last success, when an equal task and configuration made it, and the derivations it built. */
    lastSuccess: z.object({ job: jobIdSchema, drvs: z.array(z.string().max(500)).max(LIMITS.outputs) }).optional(),
    /** For a repository task: its file may become jobs of the lane. A broker that does not say so would take such a result for one in which all was done. */
    expands: z.boolean().optional(),
    taskSha256: sha256Schema,
    configurationSha256: sha256Schema.nullable(),
    /** The plan that was approved: the run applies if it comes to the same. Missing for an effect with a plan that has still to be made. */
    plan: z.object({ sha256: sha256Schema }).optional(),
    limits: z.object({ logBytes: z.int(), runMs: z.int(), silenceMs: z.int(), graceMs: z.int() }),
    brokerTime: timeSchema,
  })
  .meta({ id: "Assignment" });
export type Assignment = z.output<typeof assignmentSchema>;

/** What the broker wants of a running run. `number` grows, so that a runner says which command it has seen. */
export const commandSchema = z
  .object({ number: z.int(), kind: z.literal("cancel"), reason: reasonSchema, graceMs: z.int(), force: z.boolean() })
  .meta({ id: "Command" });
export type Command = z.output<typeof commandSchema>;

/**
 * Keeps the lease; the first one acknowledges the assignment. A long poll: with `waitMs` it is answered when a command
 * newer than `seenCommand` is there, or after the wait.
 */
export const heartbeatBodySchema = z
  .strictObject({
    epoch: z.int().min(1),
    seenCommand: z.int().min(0).optional(),
    waitMs: z.int().min(0).max(LIMITS.heartbeatHoldMs).optional(),
    isolation: isolationSchema.optional(),
  })
  .meta({ id: "HeartbeatBody" });
export const heartbeatAnswerSchema = z
  .object({ leaseMs: z.int(), command: commandSchema.nullable() })
  .meta({ id: "HeartbeatAnswer" });
export type HeartbeatBody = z.output<typeof heartbeatBodySchema>;
export type HeartbeatAnswer = z.output<typeof heartbeatAnswerSchema>;

/** What happens inside a run. `number` makes a repeated batch harmless: the broker keeps the highest it has applied. */
export const runnerEventSchema = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("phase"), phase: phaseSchema, at: timeSchema }),
  z.strictObject({ type: z.literal("progress"), progress: progressSchema }),
  z.strictObject({
    type: z.literal("plan"),
    derivations: z.array(derivationSchema).max(LIMITS.derivations),
    edges: z.array(z.tuple([z.string().max(300), z.string().max(300)])).max(LIMITS.derivationEdges),
  }),
  z.strictObject({ type: z.literal("derivations"), derivations: z.array(derivationSchema).max(LIMITS.derivations) }),
  /** The runner keeps state files of this deployment's effects from now on: later ones are given to it alone. */
  z.strictObject({ type: z.literal("state") }),
]);
export type RunnerEvent = z.output<typeof runnerEventSchema>;
export const runnerEventsBodySchema = z
  .strictObject({
    epoch: z.int().min(1),
    number: z.int().min(1),
    events: z.array(runnerEventSchema).min(1).max(LIMITS.arrayItems),
  })
  .meta({ id: "RunnerEventsBody" });
export type RunnerEventsBody = z.output<typeof runnerEventsBodySchema>;

export const OUTCOMES = ["succeeded", "failed", "cancelled", "skipped", "refused", "unknown"] as const;
/** How a run ended. `refused`: nothing ran, another runner may; `unknown`: apply began and its end was not seen. */
export const outcomeSchema = z.enum(OUTCOMES);
export type Outcome = z.output<typeof outcomeSchema>;

/** A DSSE envelope as it travels; `dsse.ts` opens it. */
export const wireEnvelopeSchema = z
  .looseObject({
    payload: z.string(),
    payloadType: z.string().max(200),
    signatures: z
      .array(z.looseObject({ keyid: z.string().max(200).optional(), sig: z.string().max(200) }))
      .min(1)
      .max(8),
  })
  .meta({ id: "Envelope" });
export type WireEnvelope = z.output<typeof wireEnvelopeSchema>;

/**
 * The end of a run; of one without a lease the epoch is 0. The first statement is the job's result; the others are provenance, one per output. `logTail` carries the end of
 * the log (base64) at its offset, so that a short job needs no upload of its own.
 */
export const resultBodySchema = z
  .strictObject({
    epoch: z.int().min(0),
    outcome: outcomeSchema,
    exitCode: z.int().nullable(),
    reason: reasonSchema.nullable(),
    finishedAt: timeSchema,
    isolation: isolationSchema.nullable(),
    survivorsKilled: z.int().min(0),
    /** How often each secret was masked, by name; missing for a run that opened none. */
    redactions: z.record(secretNameSchema, z.int().min(0)).optional(),
    /** Missing for a run without a checkout, and where too much has changed. */
    changes: runChangesSchema.optional(),
    log: z.strictObject({ bytes: z.int().min(0).max(LIMITS.logBytes), sha256: sha256Schema, truncated: z.boolean() }),
    logTail: z
      .strictObject({ offset: z.int().min(0), base64: z.base64().max(Math.ceil(LIMITS.logTailBytes / 3) * 4) })
      .optional(),
    outputs: z.array(outputSchema).max(LIMITS.outputs),
    statements: z.array(wireEnvelopeSchema).min(1).max(LIMITS.statements),
    events: runnerEventsBodySchema.omit({ epoch: true }).optional(),
  })
  .meta({ id: "ResultBody" });
export type ResultBody = z.output<typeof resultBodySchema>;

/** `late` means: kept for the record, but the lease was gone and the job is not changed by it. */
export const resultAnswerSchema = z
  .object({ accepted: z.boolean(), late: z.boolean(), state: jobStateSchema })
  .meta({ id: "ResultAnswer" });
export type ResultAnswer = z.output<typeof resultAnswerSchema>;

/** What a key has to sign to get a session, and until when. */
export const sessionChallengeSchema = z
  .object({ challenge: z.string(), audience: z.string(), expiresAt: timeSchema })
  .meta({ id: "SessionChallenge" });

export const RUNNER_STATES = ["online", "offline"] as const;
/** A runner as the fleet shows it. `protocol` is the version that it spoke when it last polled; brokers of version 1 do not say. */
export const runnerViewSchema = z
  .object({
    id: runnerIdSchema,
    name: z.string(),
    pool: poolNameSchema.nullable(),
    state: z.enum(RUNNER_STATES),
    drained: z.boolean(),
    /** How it was drained, by a broker that can say it. */
    drain: z
      .object({ note: z.string().nullable(), deadlineAt: timeSchema.nullable(), end: z.enum(DRAIN_ENDS) })
      .nullable()
      .optional(),
    revoked: z.boolean(),
    offer: offerSchema.nullable(),
    protocol: z.int().nullable().optional(),
    busy: z.int(),
    registeredAt: timeSchema,
    seenAt: timeSchema.nullable(),
    /** Where secrets for this runner are sealed to, signed by it (`verifyRecipient`); missing until it has published one. */
    recipient: wireEnvelopeSchema.optional(),
  })
  .meta({ id: "Runner" });
export type RunnerView = z.output<typeof runnerViewSchema>;

/** Depth of a pool and its tickets, oldest and most urgent first. */
export const queueViewSchema = z
  .object({
    pool: poolNameSchema,
    ticketCount: z.int(),
    parkedCount: z.int(),
    tickets: z.array(
      z.object({
        job: jobIdSchema,
        deployment: deploymentIdSchema,
        priority: z.string(),
        queuedAt: timeSchema,
        waiting: waitingSchema,
      }),
    ),
  })
  .meta({ id: "Queue" });
export type QueueView = z.output<typeof queueViewSchema>;
