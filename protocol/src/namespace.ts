import * as z from "zod";
import { confinementSchema, roleSchema, scopeSchema } from "./access.ts";
import {
  commitSchema,
  deploymentIdSchema,
  jobIdSchema,
  namespaceIdSchema,
  poolNameSchema,
  refSchema,
  runnerIdSchema,
  timeSchema,
} from "./ids.ts";
import { approvalRuleSchema } from "./approval.ts";
import { hookSchema, hookViewSchema } from "./hook.ts";
import { deploymentViewSchema, jobViewSchema } from "./job.ts";
import {
  interruptSchema,
  jobLimitsSchema,
  modeSchema,
  prioritySchema,
  repositoryUrlSchema,
  requiresSchema,
  secretNameSchema,
  taskSchema,
  quorumSchema,
} from "./submit.ts";
import { LIMITS } from "./limits.ts";
import { locksSchema } from "./locks.ts";

/** `plm_<id>_<secret>`: the prefix is there for secret scanners, the id for the look-up; only a hash is stored. */
export const TOKEN_PATTERN = /^plm_([a-z0-9]{12})_([A-Za-z0-9]{43})$/;

export const namespaceViewSchema = z.object({ id: namespaceIdSchema, createdAt: timeSchema }).meta({ id: "Namespace" });
export type NamespaceView = z.output<typeof namespaceViewSchema>;
export const namespaceBodySchema = z.strictObject({ id: namespaceIdSchema }).meta({ id: "NamespaceBody" });

/** A token by its scopes, or by the role of who will use it. `deployments` confines it to some. */
export const tokenBodySchema = z
  .strictObject({
    name: z.string().min(1).max(LIMITS.nameCharacters),
    scopes: z.array(scopeSchema).min(1).max(4).optional(),
    role: roleSchema.optional(),
    deployments: confinementSchema.optional(),
    expiresAt: timeSchema.optional(),
  })
  .refine(({ scopes, role }) => (scopes === undefined) !== (role === undefined), {
    path: ["scopes"],
    message: "a token has either `scopes` or a `role`",
  })
  .meta({ id: "TokenBody" });
export type TokenBody = z.output<typeof tokenBodySchema>;
export const tokenViewSchema = z
  .object({
    id: z.string(),
    name: z.string(),
    scopes: z.array(scopeSchema),
    role: roleSchema.optional(),
    deployments: confinementSchema.optional(),
    createdAt: timeSchema,
    expiresAt: timeSchema.nullable(),
    createdBy: z.string(),
  })
  .meta({ id: "Token" });
export type TokenView = z.output<typeof tokenViewSchema>;
/** The only answer that ever holds the secret. */
export const tokenCreatedSchema = tokenViewSchema.extend({ token: z.string() }).meta({ id: "TokenCreated" });
export type TokenCreated = z.output<typeof tokenCreatedSchema>;

/** A ticket opens one WebSocket within 30 s as the subprotocol `ticket.<ticket>`, so that no secret is in a URL. */
export const wsTicketSchema = z.object({ ticket: z.string(), expiresAt: timeSchema }).meta({ id: "WebSocketTicket" });
export type WsTicket = z.output<typeof wsTicketSchema>;

const pattern = z.string().min(1).max(255);
/** A rule: which pushes make which job. Patterns know `*` (within a path part) and `**`; what one with `!` before it matches is left out. Empty `repositories` matches every repository. */
export const triggerSchema = z
  .strictObject({
    name: z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/),
    repositories: z.array(repositoryUrlSchema).max(64).optional(),
    refs: z.array(pattern).min(1).max(32),
    events: z
      .array(z.enum(["push", "patch", "tag"]))
      .min(1)
      .max(3)
      .optional(),
    authors: z.array(z.string().max(128)).max(256).optional(),
    deployment: z.string().min(1).max(200),
    task: taskSchema,
    mode: modeSchema.optional(),
    interrupt: interruptSchema.optional(),
    priority: prioritySchema.optional(),
    requires: requiresSchema.optional(),
    hold: z.boolean().optional(),
    urls: z.array(repositoryUrlSchema).max(8).optional(),
  })
  .meta({ id: "Trigger" });
/** `deployment` is a template: `{repository}`, `{ref}`, `{branch}`, `{tag}`, `{patch}` are replaced by the push's values, made safe. */
export type Trigger = z.output<typeof triggerSchema>;
/** Stored secrets for the jobs of a rule, by its name. They stand beside the rules, whose readers of version 1 allow no other field. */
const ruleSecrets = z
  .record(triggerSchema.shape.name, z.array(secretNameSchema).min(1).max(LIMITS.jobSecrets))
  .optional();
/** Whose jobs a rule starts without asking, by its name; beside the rules for the same reason. */
const ruleApprovals = z.record(triggerSchema.shape.name, approvalRuleSchema).optional();
/** How many runners have to agree about the jobs of a rule, by its name; beside the rules for the same reason. */
const ruleQuorums = z.record(triggerSchema.shape.name, quorumSchema).optional();
/** Rules whose jobs are skipped when they would build what the deployment's last success has built; beside the rules for the same reason. */
const ruleSkips = z.array(triggerSchema.shape.name).max(LIMITS.triggers).optional();
/** The locks of the jobs of a rule, by its name; beside the rules for the same reason. */
const ruleLocks = z.record(triggerSchema.shape.name, locksSchema).optional();
/** The most that jobs of a rule may take, by its name; beside the rules for the same reason. */
const ruleLimits = z.record(triggerSchema.shape.name, jobLimitsSchema).optional();
/** Paths of which one has to have changed, by the rule's name; beside the rules for the same reason. */
const rulePaths = z.record(triggerSchema.shape.name, z.array(pattern).min(1).max(32)).optional();
export const triggersBodySchema = z
  .strictObject({
    triggers: z.array(triggerSchema).max(LIMITS.triggers),
    hooks: z.array(hookSchema).max(64),
    secrets: ruleSecrets,
    approvals: ruleApprovals,
    quorums: ruleQuorums,
    skipUnchanged: ruleSkips,
    locks: ruleLocks,
    limits: ruleLimits,
    paths: rulePaths,
  })
  .meta({ id: "TriggersBody" });
export type TriggersBody = z.output<typeof triggersBodySchema>;
/** Secrets are never read back: a hook shows only their names. */
export const triggersViewSchema = z
  .object({
    version: z.int(),
    triggers: z.array(triggerSchema),
    hooks: z.array(hookViewSchema),
    secrets: ruleSecrets,
    approvals: ruleApprovals,
    quorums: ruleQuorums,
    skipUnchanged: ruleSkips,
    locks: ruleLocks,
    limits: ruleLimits,
    paths: rulePaths,
  })
  .meta({ id: "Triggers" });
export type TriggersView = z.output<typeof triggersViewSchema>;

/**
 * plumule's own webhook body, what the bridge sends. `audience` is `<broker origin>/v1/{ns}`, so that a webhook for one broker cannot be
 * replayed to another. `before`/`after` are commit ids of the ref; `after` of all zeros is a deletion; `base` is what a patch is to be merged
 * into. `number` grows with every push that the sender tells of a ref, so that a late one is known as such. `delegates` of the repository and
 * whether the sender's node follows the author decide whether a job may start without approval. `paths` are those that differ between what was there and
 * `after` (of a patch: that it changes), left out when they are not known; with `pathsTruncated` there are more.
 */
export const pushBodySchema = z
  .looseObject({
    type: z.enum(["push", "patch", "tag"]),
    audience: z.string().max(500),
    repository: repositoryUrlSchema,
    urls: z.array(repositoryUrlSchema).max(8).optional(),
    ref: refSchema,
    before: z.string().max(64).nullish(),
    after: z.string().max(64),
    author: z.string().max(128).nullish(),
    node: z.string().max(128).nullish(),
    patch: z.string().max(64).nullish(),
    message: z.string().max(LIMITS.textCharacters).nullish(),
    number: z.int().min(0).optional(),
    base: commitSchema.optional(),
    delegates: z.array(runnerIdSchema).max(LIMITS.delegates).optional(),
    followed: z.boolean().optional(),
    paths: z.array(z.string().max(LIMITS.changedPathsBytes)).max(LIMITS.changedPaths).optional(),
    pathsTruncated: z.boolean().optional(),
  })
  .meta({ id: "Push" });
export type Push = z.output<typeof pushBodySchema>;

/** States of a commit in the words of Radicle Garden. */
export const COMMIT_STATES = ["pending", "running", "success", "failure"] as const;
export type CommitState = (typeof COMMIT_STATES)[number];

/** What a delivery led to: jobs, or in words why none. */
export const deliveryViewSchema = z
  .object({
    id: z.string(),
    webhookId: z.string(),
    hook: z.string().nullable(),
    signer: z.string(),
    receivedAt: timeSchema,
    type: z.string(),
    repository: z.string().nullable(),
    ref: z.string().nullable(),
    after: z.string().nullable(),
    state: z.enum(["accepted", "ignored", "duplicate", "submitted", "failed"]),
    results: z.array(
      z.object({
        trigger: z.string(),
        deployment: deploymentIdSchema.nullable(),
        job: jobIdSchema.nullable(),
        detail: z.string(),
      }),
    ),
    /** What the sender was told of the commit, when its webhook asked to be told. */
    status: z.object({ context: z.string(), state: z.enum(COMMIT_STATES).nullable(), detail: z.string() }).optional(),
  })
  .meta({ id: "Delivery" });
export type DeliveryView = z.output<typeof deliveryViewSchema>;

/** What a watcher of a namespace starts from: the deployments that changed last (at most 200) and the newest jobs (at most 50). */
export const namespaceSnapshotSchema = z
  .object({ deployments: z.array(deploymentViewSchema), jobs: z.array(jobViewSchema), cursor: z.string() })
  .meta({ id: "NamespaceSnapshot" });
export type NamespaceSnapshot = z.output<typeof namespaceSnapshotSchema>;

/** One-time token with which one runner may register its key. */
export const registrationTokenSchema = z
  .object({ token: z.string(), pool: poolNameSchema, expiresAt: timeSchema })
  .meta({ id: "RegistrationToken" });
export type RegistrationToken = z.output<typeof registrationTokenSchema>;

/** A page of a list. `nextCursor` is null on the last page. */
export function pageOf<T extends z.ZodType>(
  id: string,
  item: T,
): z.ZodObject<{ items: z.ZodArray<T>; nextCursor: z.ZodNullable<z.ZodString> }> {
  return z.object({ items: z.array(item), nextCursor: z.string().nullable() }).meta({ id });
}
