import * as z from "zod";
import {
  deploymentIdSchema,
  namespaceIdSchema,
  poolNameSchema,
  runIdSchema,
  runnerIdSchema,
  timeSchema,
} from "../ids.ts";
import { execBodySchema, execCallSchema, execSessionSchema } from "../exec.ts";
import { LIMITS } from "../limits.ts";
import { lockViewSchema } from "../locks.ts";
import { pageOf, registrationTokenSchema } from "../namespace.ts";
import {
  assignmentSchema,
  drainBodySchema,
  heartbeatAnswerSchema,
  heartbeatBodySchema,
  pollBodySchema,
  queueViewSchema,
  resultAnswerSchema,
  resultBodySchema,
  runnerEventsBodySchema,
  runnerOrderSchema,
  runnerViewSchema,
  sessionChallengeSchema,
  wireEnvelopeSchema,
} from "../run.ts";
import { recipientBodySchema } from "../secrets.ts";
import { standaloneAnswerSchema, standaloneBodySchema, workAnswerSchema, workQuerySchema } from "../standalone.ts";
import { endpoint } from "./endpoint.ts";

const ns = z.strictObject({ ns: namespaceIdSchema });
const runner = ns.extend({ runner: runnerIdSchema });
const run = ns.extend({ deployment: deploymentIdSchema, run: runIdSchema });

/** How long a log is at the broker, bytes. */
const logSizeSchema = z.object({ bytes: z.int() }).meta({ id: "LogSize" });

export const getQueue = endpoint({
  name: "getQueue",
  method: "get",
  path: "/v1/:ns/queue",
  summary: "Tickets of a pool in dispatch order, each with why it waits",
  access: "read",
  params: ns,
  query: z.strictObject({
    pool: poolNameSchema.optional(),
    limit: z.coerce.number().int().min(1).max(LIMITS.listPage).optional(),
  }),
  answers: { 200: queueViewSchema },
});
export const listLocks = endpoint({
  name: "listLocks",
  method: "get",
  path: "/v1/:ns/locks",
  summary: "Locks that jobs have or wait for, by name",
  access: "operate",
  params: ns,
  query: z.strictObject({
    cursor: z.string().max(400).optional(),
    limit: z.coerce.number().int().min(1).max(LIMITS.listPage).optional(),
  }),
  answers: { 200: pageOf("LockPage", lockViewSchema) },
  refusals: ["invalid-cursor"],
});
export const listRunners = endpoint({
  name: "listRunners",
  method: "get",
  path: "/v1/:ns/runners",
  summary: "The fleet",
  access: "read",
  params: ns,
  query: z.strictObject({
    cursor: z.string().max(400).optional(),
    limit: z.coerce.number().int().min(1).max(LIMITS.listPage).optional(),
  }),
  answers: { 200: pageOf("RunnerPage", runnerViewSchema) },
  refusals: ["invalid-cursor"],
});
export const drainRunner = endpoint({
  name: "drainRunner",
  method: "post",
  path: "/v1/:ns/runners/:runner/drain",
  summary: "Give a runner no new work, with a note, a deadline for its runs, and what it does then",
  access: "operate",
  params: runner,
  body: drainBodySchema,
  answers: { 200: runnerViewSchema },
  refusals: ["not-found"],
});
export const undrainRunner = endpoint({
  name: "undrainRunner",
  method: "post",
  path: "/v1/:ns/runners/:runner/undrain",
  summary: "Give a runner work again",
  access: "operate",
  params: runner,
  answers: { 200: runnerViewSchema },
  refusals: ["not-found"],
});
export const revokeRunner = endpoint({
  name: "revokeRunner",
  method: "delete",
  path: "/v1/:ns/runners/:runner",
  summary: "Revoke a runner: its sessions end, its signatures count no more",
  access: "admin",
  params: runner,
  answers: { 200: runnerViewSchema },
  refusals: ["not-found"],
});
export const createRegistration = endpoint({
  name: "createRegistration",
  method: "post",
  path: "/v1/:ns/runner-registrations",
  summary: "Make a one-time token with which one runner may register",
  access: "operate",
  params: ns,
  body: z.strictObject({ pool: poolNameSchema.optional() }).meta({ id: "RegistrationBody" }),
  answers: { 201: registrationTokenSchema },
  refusals: ["quota-exceeded"],
});

/** Registration: the one-time token and an envelope in which the key signs the token's hash, the audience and the time (`challenge.ts`). */
export const registerRunner = endpoint({
  name: "registerRunner",
  method: "post",
  path: "/v1/:ns/runners",
  summary: "Register a runner's key with proof of possession",
  access: "signed",
  params: ns,
  body: z
    .strictObject({
      token: z.string().max(200),
      name: z.string().min(1).max(LIMITS.nameCharacters),
      proof: wireEnvelopeSchema,
    })
    .meta({ id: "RunnerBody" }),
  answers: { 201: runnerViewSchema },
  refusals: ["unauthenticated", "weak-key", "bad-signature"],
});
/** A session in two steps: without `proof` the answer is 200 with a challenge; with the signed challenge it is 201 with a bearer for 15 minutes. */
export const createSession = endpoint({
  name: "createSession",
  method: "post",
  path: "/v1/:ns/runners/session",
  summary: "Challenge and session of a runner",
  access: "signed",
  params: ns,
  body: z.strictObject({ runner: runnerIdSchema, proof: wireEnvelopeSchema.optional() }).meta({ id: "SessionBody" }),
  answers: {
    200: sessionChallengeSchema,
    201: z.object({ token: z.string(), pool: poolNameSchema, expiresAt: timeSchema }).meta({ id: "RunnerSession" }),
  },
  refusals: ["unauthenticated", "bad-signature"],
});
export const putRecipient = endpoint({
  name: "putRecipient",
  method: "put",
  path: "/v1/:ns/runners/:runner/recipient",
  summary: "Publish where secrets for this runner are sealed to, signed by its key",
  access: "runner",
  params: runner,
  body: recipientBodySchema,
  answers: { 204: null },
  refusals: ["forbidden", "bad-signature"],
});
/** What a poll is answered with instead of work. */
export const pollWordSchema = z.union([runnerOrderSchema, execCallSchema]).meta({ id: "PollWord" });
export const pollWork = endpoint({
  name: "pollWork",
  method: "post",
  path: "/v1/:ns/poll",
  summary:
    "Long-poll for work: 200 with an assignment, 202 with an order to a runner that said which it has seen or a call into a session, 204 after the hold",
  access: "runner",
  params: ns,
  body: pollBodySchema,
  answers: { 200: assignmentSchema, 202: pollWordSchema, 204: null },
  refusals: ["forbidden", "unavailable"],
});

export const heartbeatRun = endpoint({
  name: "heartbeatRun",
  method: "post",
  path: "/v1/:ns/deployments/:deployment/runs/:run/heartbeat",
  summary: "Keep the lease; the first heartbeat acknowledges the run; long-polls for commands",
  access: "lease",
  params: run,
  body: heartbeatBodySchema,
  answers: { 200: heartbeatAnswerSchema },
  refusals: ["stale-lease"],
});
export const openExec = endpoint({
  name: "openExec",
  method: "post",
  path: "/v1/:ns/runs/:run/exec",
  summary: "Open a session in the workspace of a run, where the owner of its runner allows it",
  access: "operate",
  params: ns.extend({ run: runIdSchema }),
  body: execBodySchema,
  bodyLimitBytes: LIMITS.submitBytes,
  answers: { 201: execSessionSchema },
  refusals: ["wrong-state", "busy", "gone"],
});
export const joinExec = endpoint({
  name: "joinExec",
  method: "get",
  path: "/v1/:ns/deployments/:deployment/runs/:run/exec",
  summary: "WebSocket of either end of a session, subprotocol plumule.exec.v1 beside exec.<token>",
  access: "signed",
  params: run,
  answerMedium: "stream",
  answers: { 101: null },
  refusals: ["upgrade-required"],
});
export const reportRunEvents = endpoint({
  name: "reportRunEvents",
  method: "post",
  path: "/v1/:ns/deployments/:deployment/runs/:run/events",
  summary: "Phases, progress and derivations of a run",
  access: "lease",
  params: run,
  body: runnerEventsBodySchema,
  bodyLimitBytes: LIMITS.runnerEventsBytes,
  answers: { 200: z.object({ number: z.int() }).meta({ id: "RunnerEventsAnswer" }) },
  refusals: ["stale-lease", "wrong-state"],
});
export const appendLog = endpoint({
  name: "appendLog",
  method: "put",
  path: "/v1/:ns/deployments/:deployment/runs/:run/log",
  summary:
    "Append log bytes at an offset: same bytes again 200, other bytes 409, a hole 416 with the size to resume from",
  access: "lease",
  params: run,
  query: z.strictObject({
    offset: z.coerce.number().int().min(0).max(LIMITS.logBytes),
    epoch: z.coerce.number().int().min(1),
  }),
  bodyMedium: "octets",
  bodyLimitBytes: LIMITS.logAppendBytes,
  bodyEncoding: "zstd",
  answers: { 200: logSizeSchema },
  refusals: ["stale-lease", "log-conflict", "log-gap", "invalid-body"],
});
export const postResult = endpoint({
  name: "postResult",
  method: "post",
  path: "/v1/:ns/deployments/:deployment/runs/:run/result",
  summary: "The signed end of a run",
  access: "lease",
  params: run,
  body: resultBodySchema,
  bodyLimitBytes: LIMITS.resultBytes,
  answers: { 200: resultAnswerSchema },
  refusals: ["stale-lease", "invalid-statement", "bad-signature"],
});

export const findWork = endpoint({
  name: "findWork",
  method: "get",
  path: "/v1/:ns/deployments/:deployment/work",
  summary: "The job of a deployment that has done some work, or is to do it, for a runner that would do it by itself",
  access: "runner",
  params: ns.extend({ deployment: deploymentIdSchema }),
  query: workQuerySchema,
  answers: { 200: workAnswerSchema },
});
export const recordStandalone = endpoint({
  name: "recordStandalone",
  method: "post",
  path: "/v1/:ns/deployments/:deployment/standalone-runs",
  summary: "Record a run that its runner did without the broker: once for the same work, whoever's result comes first",
  access: "runner",
  params: ns.extend({ deployment: deploymentIdSchema }),
  body: standaloneBodySchema,
  bodyLimitBytes: LIMITS.standaloneBytes,
  answers: { 200: standaloneAnswerSchema },
  refusals: ["forbidden", "invalid-statement", "bad-signature", "conflict", "busy", "gone"],
});
export const appendStandaloneLog = endpoint({
  name: "appendStandaloneLog",
  method: "put",
  path: "/v1/:ns/deployments/:deployment/standalone-runs/:run/log",
  summary: "The log of such a run, at an offset, by the runner that did it, until it is as long as was signed",
  access: "runner",
  params: run,
  query: z.strictObject({ offset: z.coerce.number().int().min(0).max(LIMITS.logBytes) }),
  bodyMedium: "octets",
  bodyLimitBytes: LIMITS.logChunkBytes,
  answers: { 200: logSizeSchema },
  refusals: ["forbidden", "log-conflict", "log-gap", "not-found", "wrong-state"],
});
