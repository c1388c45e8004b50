import * as z from "zod";
import { eventsPageSchema } from "../events.ts";
import {
  commitSchema,
  deploymentIdSchema,
  jobIdSchema,
  namespaceIdSchema,
  runIdSchema,
  runnerIdSchema,
  sha256Schema,
} from "../ids.ts";
import {
  deploymentSnapshotSchema,
  deploymentStateSchema,
  deploymentViewSchema,
  derivationSchema,
  jobDetailSchema,
  jobStateSchema,
  jobViewSchema,
  runViewSchema,
} from "../job.ts";
import { signedApprovalSchema } from "../approval.ts";
import { jobMatchSchema } from "../match.ts";
import { scheduleNameSchema } from "../schedules.ts";
import { submitBodySchema } from "../submit.ts";
import { LIMITS } from "../limits.ts";
import { pageOf } from "../namespace.ts";
import { endpoint } from "./endpoint.ts";

const ns = z.strictObject({ ns: namespaceIdSchema });
const deployment = ns.extend({ deployment: deploymentIdSchema });
const job = ns.extend({ job: jobIdSchema });
const run = ns.extend({ run: runIdSchema });
const reason = z.string().max(LIMITS.textCharacters).optional();
const limit = z.coerce.number().int().min(1).max(LIMITS.listPage).optional();
const cursor = z.string().max(400).optional();

/** The answer to a submit: the job, what it replaced, its place in the lane, and the cursor from which to follow. */
export const submitAnswerSchema = z
  .object({
    job: jobViewSchema,
    superseded: z.array(jobIdSchema),
    position: z.int(),
    cursor: z.string(),
    joined: z.boolean(),
    dryRun: z.boolean(),
    /** Of a rerun: steps of the task file that were not run because of this one, and were queued behind it. */
    followers: z.array(jobIdSchema).optional(),
  })
  .meta({ id: "SubmitAnswer" });
export type SubmitAnswer = z.output<typeof submitAnswerSchema>;

export const cancelBodySchema = z.strictObject({ reason, force: z.boolean().optional() }).meta({ id: "CancelBody" });
export type CancelBody = z.output<typeof cancelBodySchema>;
/** What a cancel did: jobs that ended or are ending, and jobs that had ended before. */
export const cancelAnswerSchema = z
  .object({ cancelled: z.array(jobIdSchema), alreadyFinal: z.array(jobIdSchema), deployment: deploymentViewSchema })
  .meta({ id: "CancelAnswer" });
export type CancelAnswer = z.output<typeof cancelAnswerSchema>;

/** A stranger's job needs a signed `approval` (`signApproval`), one that has made a plan the SHA-256 of exactly that; any other held job the caller's word. */
export const approveBodySchema = z
  .strictObject({
    commit: commitSchema.optional(),
    approval: signedApprovalSchema.optional(),
    plan: sha256Schema.optional(),
  })
  .meta({ id: "ApproveBody" });
export const resolveBodySchema = z
  .strictObject({ outcome: z.enum(["succeeded", "failed", "cancelled"]), reason })
  .meta({ id: "ResolveBody" });
/** A teardown: `task` runs in the lane, and its success removes the deployment. Without `task` the deployment is removed once idle. */
export const deleteBodySchema = z
  .strictObject({ reason, task: submitBodySchema.shape.task.optional() })
  .meta({ id: "DeleteBody" });
export type DeleteBody = z.output<typeof deleteBodySchema>;

/** A paused schedule fires no more, whatever is pushed, until it is resumed; what it missed meanwhile is not made up for. */
export const scheduleBodySchema = z.strictObject({ paused: z.boolean() }).meta({ id: "ScheduleBody" });

export const derivationsSchema = z
  .object({ nodes: z.array(derivationSchema), edges: z.array(z.tuple([z.string(), z.string()])) })
  .meta({ id: "Derivations" });

const eventsQuery = z.strictObject({
  since: z.string().max(40).optional(),
  limit: z.coerce.number().int().min(1).max(LIMITS.eventsPage).optional(),
  wait: z.coerce
    .number()
    .min(0)
    .max(LIMITS.historyHoldMs / 1000)
    .optional(),
});

export const submitJob = endpoint({
  name: "submitJob",
  method: "post",
  path: "/v1/:ns/deployments/:deployment/jobs",
  summary: "Submit a job",
  access: "submit",
  params: deployment,
  query: z.strictObject({ dryRun: z.enum(["0", "1"]).optional() }),
  body: submitBodySchema,
  bodyLimitBytes: LIMITS.submitBytes,
  answers: { 202: submitAnswerSchema, 200: submitAnswerSchema },
  refusals: ["busy", "revision-conflict", "quota-exceeded", "idempotency-mismatch", "gone"],
  idempotent: true,
});
export const listDeployments = endpoint({
  name: "listDeployments",
  method: "get",
  path: "/v1/:ns/deployments",
  summary: "List deployments",
  access: "read",
  params: ns,
  query: z.strictObject({
    state: deploymentStateSchema.optional(),
    prefix: z.string().max(128).optional(),
    cursor,
    limit,
  }),
  answers: { 200: pageOf("DeploymentPage", deploymentViewSchema) },
  refusals: ["invalid-cursor"],
});
export const getDeployment = endpoint({
  name: "getDeployment",
  method: "get",
  path: "/v1/:ns/deployments/:deployment",
  summary: "Read a deployment with its pending and recent jobs",
  access: "read",
  params: deployment,
  answers: { 200: deploymentSnapshotSchema, 304: null },
  refusals: ["not-found", "gone"],
});
export const deleteDeployment = endpoint({
  name: "deleteDeployment",
  method: "delete",
  path: "/v1/:ns/deployments/:deployment",
  summary: "Tear a deployment down",
  access: "operate",
  params: deployment,
  body: deleteBodySchema,
  bodyLimitBytes: LIMITS.submitBytes,
  answers: { 202: submitAnswerSchema, 200: deploymentViewSchema },
  refusals: ["not-found", "gone", "revision-conflict", "idempotency-mismatch"],
  idempotent: true,
});
export const cancelDeployment = endpoint({
  name: "cancelDeployment",
  method: "post",
  path: "/v1/:ns/deployments/:deployment/cancel",
  summary: "Cancel every job of a deployment that has not ended",
  access: "submit",
  params: deployment,
  body: cancelBodySchema,
  answers: { 202: cancelAnswerSchema },
  refusals: ["not-found", "in-apply-phase", "idempotency-mismatch"],
  idempotent: true,
});
export const setSchedule = endpoint({
  name: "setSchedule",
  method: "put",
  path: "/v1/:ns/deployments/:deployment/schedules/:schedule",
  summary: "Pause or resume the schedules of a name, on all branches",
  access: "submit",
  params: deployment.extend({ schedule: scheduleNameSchema }),
  body: scheduleBodySchema,
  answers: { 200: deploymentViewSchema },
  refusals: ["not-found", "gone"],
});
export const listJobs = endpoint({
  name: "listJobs",
  method: "get",
  path: "/v1/:ns/jobs",
  summary: "List jobs, newest first",
  access: "read",
  params: ns,
  query: z.strictObject({
    state: jobStateSchema.optional(),
    deployment: deploymentIdSchema.optional(),
    commit: commitSchema.optional(),
    cursor,
    limit,
  }),
  answers: { 200: pageOf("JobPage", jobViewSchema) },
  refusals: ["invalid-cursor"],
});
export const getJob = endpoint({
  name: "getJob",
  method: "get",
  path: "/v1/:ns/jobs/:job",
  summary: "Read a job with its runs",
  access: "read",
  params: job,
  answers: { 200: jobDetailSchema },
  refusals: ["not-found", "gone"],
});
export const matchJob = endpoint({
  name: "matchJob",
  method: "get",
  path: "/v1/:ns/jobs/:job/runners",
  summary: "Why a job and each runner do not meet, label by label, the nearest runner first",
  access: "read",
  params: job,
  query: z.strictObject({ runner: runnerIdSchema.optional(), limit }),
  answers: { 200: jobMatchSchema },
  refusals: ["not-found", "gone"],
});
export const cancelJob = endpoint({
  name: "cancelJob",
  method: "post",
  path: "/v1/:ns/jobs/:job/cancel",
  summary: "Cancel a job",
  access: "submit",
  params: job,
  body: cancelBodySchema,
  answers: { 202: cancelAnswerSchema },
  refusals: ["not-found", "already-final", "in-apply-phase", "idempotency-mismatch"],
  idempotent: true,
});
export const approveJob = endpoint({
  name: "approveJob",
  method: "post",
  path: "/v1/:ns/jobs/:job/approve",
  summary: "Approve a held job",
  access: "operate",
  params: job,
  body: approveBodySchema,
  answers: { 200: jobViewSchema },
  refusals: ["not-found", "wrong-state", "conflict", "forbidden", "bad-signature", "invalid-statement"],
});
export const resolveJob = endpoint({
  name: "resolveJob",
  method: "post",
  path: "/v1/:ns/jobs/:job/resolve",
  summary: "Say how a job in state unknown ended",
  access: "operate",
  params: job,
  body: resolveBodySchema,
  answers: { 200: jobViewSchema },
  refusals: ["not-found", "wrong-state"],
});
export const rerunJob = endpoint({
  name: "rerunJob",
  method: "post",
  path: "/v1/:ns/jobs/:job/rerun",
  summary: "Submit the same job again; of a step, with those that were not run because of it",
  access: "submit",
  params: job,
  answers: { 202: submitAnswerSchema, 200: submitAnswerSchema },
  refusals: ["not-found", "gone", "busy", "quota-exceeded", "wrong-state"],
  idempotent: true,
});
export const getDerivations = endpoint({
  name: "getDerivations",
  method: "get",
  path: "/v1/:ns/jobs/:job/derivations",
  summary: "The derivation graph of the job's newest run",
  access: "read",
  params: job,
  answers: { 200: derivationsSchema },
  refusals: ["not-found"],
});
export const getStatements = endpoint({
  name: "getStatements",
  method: "get",
  path: "/v1/:ns/jobs/:job/statements",
  summary: "Signed envelopes of the job, one per line (.intoto.jsonl)",
  access: "read",
  params: job,
  answerMedium: "jsonl",
  answers: { 200: null },
  refusals: ["not-found"],
});
export const getRun = endpoint({
  name: "getRun",
  method: "get",
  path: "/v1/:ns/runs/:run",
  summary: "Read a run",
  access: "read",
  params: run,
  answers: { 200: runViewSchema },
  refusals: ["not-found", "gone"],
});
export const getLog = endpoint({
  name: "getLog",
  method: "get",
  path: "/v1/:ns/runs/:run/log",
  summary: "Bytes of a run's log; `Range` works; the headers Plumule-Log-Size and Plumule-Log-Complete tell the end",
  access: "read",
  params: run,
  query: z.strictObject({
    offset: z.coerce.number().int().min(0).max(LIMITS.logBytes).optional(),
    limit: z.coerce.number().int().min(1).max(LIMITS.logReadBytes).optional(),
  }),
  answerMedium: "octets",
  answers: { 200: null, 206: null },
  refusals: ["not-found", "log-gap", "log-expired"],
});
export const getCommitRuns = endpoint({
  name: "getCommitRuns",
  method: "get",
  path: "/v1/:ns/commits/:commit/runs",
  summary: "Runs of a commit: started, succeeded, failed, latest, latest of a node",
  access: "read",
  params: ns.extend({ commit: commitSchema }),
  query: z.strictObject({
    status: z.enum(["started", "succeeded", "failed"]).optional(),
    node: runnerIdSchema.optional(),
    latest: z.enum(["0", "1"]).optional(),
  }),
  answers: {
    200: z
      .object({
        items: z.array(
          z.object({
            job: jobViewSchema,
            node: runnerIdSchema.nullable(),
            run: runIdSchema.nullable(),
            status: z.enum(["started", "succeeded", "failed"]),
          }),
        ),
      })
      .meta({ id: "CommitRuns" }),
  },
});
export const getDeploymentEvents = endpoint({
  name: "getDeploymentEvents",
  method: "get",
  path: "/v1/:ns/deployments/:deployment/events",
  summary: "History of a deployment as JSON (long poll with `wait` seconds), or SSE with Accept: text/event-stream",
  access: "read",
  params: deployment,
  query: eventsQuery,
  answers: { 200: eventsPageSchema },
  refusals: ["not-found", "invalid-cursor", "cursor-expired"],
});
export const getNamespaceEvents = endpoint({
  name: "getNamespaceEvents",
  method: "get",
  path: "/v1/:ns/events",
  summary: "History of the namespace as JSON or SSE",
  access: "read",
  params: ns,
  query: eventsQuery,
  answers: { 200: eventsPageSchema },
  refusals: ["invalid-cursor", "cursor-expired"],
});
export const streamDeployment = endpoint({
  name: "streamDeployment",
  method: "get",
  path: "/v1/:ns/deployments/:deployment/stream",
  summary: "WebSocket of a deployment, subprotocol plumule.v1",
  access: "read",
  params: deployment,
  answerMedium: "stream",
  answers: { 101: null },
  refusals: ["upgrade-required"],
});
export const streamNamespace = endpoint({
  name: "streamNamespace",
  method: "get",
  path: "/v1/:ns/stream",
  summary: "WebSocket of the namespace, subprotocol plumule.v1",
  access: "read",
  params: ns,
  answerMedium: "stream",
  answers: { 101: null },
  refusals: ["upgrade-required"],
});
