import * as z from "zod";
import { confinementSchema, roleSchema, scopeSchema } from "./access.ts";
import { deploymentIdSchema, namespaceIdSchema, timeSchema } from "./ids.ts";
import { LIMITS } from "./limits.ts";

/**
 * Where a namespace asks about credentials that are none of its own: a panel's endpoint. Questions are webhooks signed with `secret` (Standard
 * Webhooks, `v1`), so that the panel knows who asks; null takes the endpoint away.
 */
export const authorizerBodySchema = z
  .strictObject({
    authorizer: z
      .strictObject({ url: z.string().max(1_000), secret: z.string().min(24).max(128).optional() })
      .nullable(),
  })
  .meta({ id: "AuthorizerBody" });
export type AuthorizerBody = z.output<typeof authorizerBodySchema>;
/** The secret is never read back. Leaving it out of the next body keeps it. */
export const authorizerViewSchema = z
  .object({ version: z.int(), authorizer: z.object({ url: z.string() }).nullable() })
  .meta({ id: "Authorizer" });
export type AuthorizerView = z.output<typeof authorizerViewSchema>;

/** What a panel is asked: who a credential belongs to, or whether somebody that it named may do one thing. */
export const authorizerQuestionSchema = z
  .discriminatedUnion("type", [
    z.object({
      type: z.literal("authenticate"),
      namespace: namespaceIdSchema,
      credential: z.string(),
      askedAt: timeSchema,
    }),
    z.object({
      type: z.literal("authorize"),
      namespace: namespaceIdSchema,
      actor: z.string(),
      /** Name of the endpoint, as in the OpenAPI document. */
      action: z.string(),
      /** Null when it is about the whole namespace. */
      deployment: deploymentIdSchema.nullable(),
      askedAt: timeSchema,
    }),
  ])
  .meta({ id: "AuthorizerQuestion" });
export type AuthorizerQuestion = z.output<typeof authorizerQuestionSchema>;

const cacheMs = z.int().min(0).max(LIMITS.authorizerCacheMs).optional();

/**
 * Who it is: `actor` in the panel's own words, and what they may do. With `ask` the panel is asked again for each thing that they do. `cacheMs` is how long
 * the answer may be believed; without it a few seconds.
 */
export const authenticateReplySchema = z
  .union([
    z.object({ allow: z.literal(false), cacheMs }),
    z
      .object({
        allow: z.literal(true),
        actor: z.string().regex(/^[\x21-\x7e]{1,100}$/, "1 to 100 visible ASCII characters"),
        scopes: z.array(scopeSchema).min(1).max(4).optional(),
        role: roleSchema.optional(),
        deployments: confinementSchema.optional(),
        ask: z.boolean().optional(),
        cacheMs,
      })
      .refine(({ scopes, role }) => (scopes === undefined) !== (role === undefined), "either `scopes` or a `role`"),
  ])
  .meta({ id: "AuthenticateReply" });
export type AuthenticateReply = z.output<typeof authenticateReplySchema>;
export const authorizeReplySchema = z.object({ allow: z.boolean(), cacheMs }).meta({ id: "AuthorizeReply" });
export type AuthorizeReply = z.output<typeof authorizeReplySchema>;
