import * as z from "zod";
import { loginSchema, membersBodySchema, membersViewSchema } from "../access.ts";
import { authorizerBodySchema, authorizerViewSchema } from "../authorizer.ts";
import { auditItemSchema } from "../audit.ts";
import { namespaceIdSchema, runnerIdSchema } from "../ids.ts";
import { LIMITS } from "../limits.ts";
import {
  deliveryViewSchema,
  namespaceBodySchema,
  namespaceViewSchema,
  pageOf,
  tokenBodySchema,
  tokenCreatedSchema,
  tokenViewSchema,
  triggersBodySchema,
  triggersViewSchema,
  wsTicketSchema,
} from "../namespace.ts";
import { sessionChallengeSchema, wireEnvelopeSchema } from "../run.ts";
import { secretBodySchema, secretViewSchema } from "../secrets.ts";
import { secretNameSchema } from "../submit.ts";
import { triggerEventSchema, triggersTestSchema } from "../trigger-test.ts";
import { trustPolicySchema } from "../trust.ts";
import { endpoint } from "./endpoint.ts";

const ns = z.strictObject({ ns: namespaceIdSchema });
const cursor = z.string().max(400).optional();
const limit = z.coerce.number().int().min(1).max(LIMITS.listPage).optional();

export const getHealth = endpoint({
  name: "getHealth",
  method: "get",
  path: "/healthz",
  summary: "Alive",
  access: "none",
  params: z.strictObject({}),
  answers: { 200: z.object({ ok: z.literal(true) }).meta({ id: "Health" }) },
});
export const getCapabilities = endpoint({
  name: "getCapabilities",
  method: "get",
  path: "/v1",
  summary: "Protocol versions, limits and the broker's public key",
  access: "none",
  params: z.strictObject({}),
  answers: {
    200: z
      .object({
        name: z.literal("plumule"),
        protocol: z.int(),
        protocolFloor: z.int(),
        limits: z.record(z.string(), z.number()),
        doors: z.array(z.string()),
        brokerKey: z.string().nullable(),
      })
      .meta({ id: "Capabilities" }),
  },
});
export const createNamespace = endpoint({
  name: "createNamespace",
  method: "post",
  path: "/v1/namespaces",
  summary: "Create a namespace",
  access: "installation",
  params: z.strictObject({}),
  body: namespaceBodySchema,
  answers: { 201: namespaceViewSchema, 200: namespaceViewSchema },
});
export const listNamespaces = endpoint({
  name: "listNamespaces",
  method: "get",
  path: "/v1/namespaces",
  summary: "List namespaces",
  access: "installation",
  params: z.strictObject({}),
  query: z.strictObject({ cursor, limit }),
  answers: { 200: pageOf("NamespacePage", namespaceViewSchema) },
  refusals: ["invalid-cursor"],
});

export const createToken = endpoint({
  name: "createToken",
  method: "post",
  path: "/v1/:ns/tokens",
  summary: "Make a token; its secret is shown once",
  access: "admin",
  params: ns,
  body: tokenBodySchema,
  answers: { 201: tokenCreatedSchema },
  refusals: ["quota-exceeded"],
});
export const listTokens = endpoint({
  name: "listTokens",
  method: "get",
  path: "/v1/:ns/tokens",
  summary: "List tokens, without secrets",
  access: "admin",
  params: ns,
  answers: { 200: z.object({ items: z.array(tokenViewSchema) }).meta({ id: "TokenList" }) },
});
export const revokeToken = endpoint({
  name: "revokeToken",
  method: "delete",
  path: "/v1/:ns/tokens/:token",
  summary: "Revoke a token",
  access: "admin",
  params: ns.extend({ token: z.string().regex(/^[a-z0-9]{12}$/) }),
  answers: { 204: null },
  refusals: ["not-found"],
});
/** A person's login in two steps, like a runner's session: without `proof` a challenge, with it a bearer for a working day. */
export const createLogin = endpoint({
  name: "createLogin",
  method: "post",
  path: "/v1/:ns/logins",
  summary: "Log in with a Radicle key: a challenge, then a bearer for the signed challenge",
  access: "signed",
  params: ns,
  body: z.strictObject({ key: runnerIdSchema, proof: wireEnvelopeSchema.optional() }).meta({ id: "LoginBody" }),
  answers: { 200: sessionChallengeSchema, 201: loginSchema },
  refusals: ["unauthenticated", "bad-signature", "weak-key"],
});
export const endLogin = endpoint({
  name: "endLogin",
  method: "delete",
  path: "/v1/:ns/logins",
  summary: "Log out: the bearer of this request is worthless from now on",
  access: "read",
  params: ns,
  answers: { 204: null },
  refusals: ["wrong-state"],
});
export const getMembers = endpoint({
  name: "getMembers",
  method: "get",
  path: "/v1/:ns/members",
  summary: "Who may log in, and as what",
  access: "admin",
  params: ns,
  answers: { 200: membersViewSchema, 304: null },
});
export const putMembers = endpoint({
  name: "putMembers",
  method: "put",
  path: "/v1/:ns/members",
  summary: "Replace who may log in; whoever is left out, or has another role now, is logged out",
  access: "admin",
  params: ns,
  body: membersBodySchema,
  bodyLimitBytes: LIMITS.submitBytes,
  answers: { 200: membersViewSchema },
  refusals: ["precondition-required", "revision-conflict", "weak-key"],
});
export const getAuthorizer = endpoint({
  name: "getAuthorizer",
  method: "get",
  path: "/v1/:ns/authorizer",
  summary: "Whom the namespace asks about credentials that are none of its own",
  access: "admin",
  params: ns,
  answers: { 200: authorizerViewSchema, 304: null },
});
export const putAuthorizer = endpoint({
  name: "putAuthorizer",
  method: "put",
  path: "/v1/:ns/authorizer",
  summary: "Replace it; questions are signed webhooks, and whatever goes wrong means no",
  access: "admin",
  params: ns,
  body: authorizerBodySchema,
  answers: { 200: authorizerViewSchema },
  refusals: ["precondition-required", "revision-conflict"],
});
export const createTicket = endpoint({
  name: "createTicket",
  method: "post",
  path: "/v1/:ns/tickets",
  summary: "A single-use ticket for a browser's WebSocket",
  access: "read",
  params: ns,
  answers: { 201: wsTicketSchema },
});

export const getTrust = endpoint({
  name: "getTrust",
  method: "get",
  path: "/v1/:ns/trust",
  summary: "The trust policy",
  access: "read",
  params: ns,
  answers: { 200: trustPolicySchema, 304: null },
});
export const putTrust = endpoint({
  name: "putTrust",
  method: "put",
  path: "/v1/:ns/trust",
  summary: "Replace the trust policy; the version must be one more than the current one",
  access: "admin",
  params: ns,
  body: trustPolicySchema,
  bodyLimitBytes: LIMITS.submitBytes,
  answers: { 200: trustPolicySchema },
  refusals: ["precondition-required", "revision-conflict", "weak-key"],
});
export const getTriggers = endpoint({
  name: "getTriggers",
  method: "get",
  path: "/v1/:ns/triggers",
  summary: "Trigger rules and hooks",
  access: "read",
  params: ns,
  answers: { 200: triggersViewSchema, 304: null },
});
export const putTriggers = endpoint({
  name: "putTriggers",
  method: "put",
  path: "/v1/:ns/triggers",
  summary: "Replace trigger rules and hooks",
  access: "admin",
  params: ns,
  body: triggersBodySchema,
  bodyLimitBytes: LIMITS.submitBytes,
  answers: { 200: triggersViewSchema },
  refusals: ["precondition-required", "revision-conflict", "weak-key"],
});
export const testTriggers = endpoint({
  name: "testTriggers",
  method: "post",
  path: "/v1/:ns/triggers/test",
  summary: "What the rules would make of a webhook's body, rule by rule; changes nothing",
  access: "read",
  params: ns,
  body: triggerEventSchema,
  bodyLimitBytes: LIMITS.webhookBytes,
  answers: { 200: triggersTestSchema },
});

const secret = ns.extend({ secret: secretNameSchema });
export const listSecrets = endpoint({
  name: "listSecrets",
  method: "get",
  path: "/v1/:ns/secrets",
  summary: "Stored secrets by name, without their boxes",
  access: "read",
  params: ns,
  answers: { 200: z.object({ items: z.array(secretViewSchema) }).meta({ id: "SecretList" }) },
});
export const putSecret = endpoint({
  name: "putSecret",
  method: "put",
  path: "/v1/:ns/secrets/:secret",
  summary: "Store a sealed secret under a name, or replace it; jobs that are submitted later get the new one",
  access: "admin",
  params: secret,
  body: secretBodySchema,
  bodyLimitBytes: LIMITS.submitBytes,
  answers: { 200: secretViewSchema },
  refusals: ["quota-exceeded"],
});
export const removeSecret = endpoint({
  name: "removeSecret",
  method: "delete",
  path: "/v1/:ns/secrets/:secret",
  summary: "Forget a stored secret; jobs that were submitted with it keep it",
  access: "admin",
  params: secret,
  answers: { 204: null },
  refusals: ["not-found"],
});

export const getAudit = endpoint({
  name: "getAudit",
  method: "get",
  path: "/v1/:ns/audit",
  summary: "The audit log, oldest rows first: the text of each, and the heads that the broker signed",
  access: "admin",
  params: ns,
  query: z.strictObject({ cursor, limit }),
  answers: { 200: pageOf("AuditPage", auditItemSchema) },
  refusals: ["invalid-cursor"],
});

const hookAnswer = deliveryViewSchema;
const hook = {
  method: "post",
  summary: "A signed webhook: Standard Webhooks (v1a, v1), or Radicle Garden / GitHub style",
  access: "signed",
  bodyMedium: "octets",
  bodyLimitBytes: LIMITS.webhookBytes,
  answers: { 200: hookAnswer, 202: hookAnswer },
  refusals: [
    "missing-header",
    "invalid-parameter",
    "bad-signature",
    "timestamp-out-of-window",
    "idempotency-mismatch",
    "invalid-json",
    "invalid-body",
  ],
} as const;
export const receiveHook = endpoint({ ...hook, name: "receiveHook", path: "/v1/:ns/hooks/radicle", params: ns });
export const receiveNamedHook = endpoint({
  ...hook,
  name: "receiveNamedHook",
  path: "/v1/:ns/hooks/radicle/:hook",
  params: ns.extend({ hook: z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/) }),
});
export const listDeliveries = endpoint({
  name: "listDeliveries",
  method: "get",
  path: "/v1/:ns/deliveries",
  summary: "Webhooks received, newest first, and what they led to",
  access: "read",
  params: ns,
  query: z.strictObject({ cursor, limit }),
  answers: { 200: pageOf("DeliveryPage", deliveryViewSchema) },
  refusals: ["invalid-cursor"],
});
export const redeliver = endpoint({
  name: "redeliver",
  method: "post",
  path: "/v1/:ns/deliveries/:delivery/redeliver",
  summary: "Handle a delivery again, with the rules of now",
  access: "operate",
  params: ns.extend({ delivery: z.string().regex(/^[0-9a-f-]{36}$/) }),
  answers: { 202: deliveryViewSchema },
  refusals: ["not-found", "wrong-state"],
});
