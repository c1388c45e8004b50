import * as z from "zod";
import { deploymentIdSchema } from "./ids.ts";
import { pushBodySchema } from "./namespace.ts";
import { jobLimitsSchema } from "./submit.ts";

/** A webhook's body to be tried: plumule's own (`audience` may be left out), Radicle Garden's or GitHub's. */
export const triggerEventSchema = z.looseObject({}).meta({ id: "TriggerEvent" });

/**
 * One thing that a rule asks of a push. `name` is for programs: `commit`, `event`, `repository`, `ref`, `author`, `template`, `paths`; later brokers
 * may know more. `assumed`: it is not known, and counts as met.
 */
export const ruleCheckSchema = z
  .object({ name: z.string(), ok: z.boolean(), detail: z.string(), assumed: z.boolean().optional() })
  .meta({ id: "RuleCheck" });
export type RuleCheck = z.output<typeof ruleCheckSchema>;

/**
 * What the rules would make of an event. `version` is that of the rules, `push` the event as they read it, null for what starts no job. `detail` says why
 * nothing starts whatever the rules say, such as a copy of a push; null where they decide. Of each rule, in their order: the deployment of its job or
 * null, in words what comes of it, who may approve when the job would be held for a stranger, the most that it may take, and everything that was asked.
 */
export const triggersTestSchema = z
  .object({
    version: z.int(),
    push: pushBodySchema.nullable(),
    detail: z.string().nullable(),
    results: z.array(
      z.object({
        trigger: z.string(),
        deployment: deploymentIdSchema.nullable(),
        detail: z.string(),
        approvers: z.array(z.string()).optional(),
        limits: jobLimitsSchema.optional(),
        checks: z.array(ruleCheckSchema),
      }),
    ),
  })
  .meta({ id: "TriggersTest" });
export type TriggersTest = z.output<typeof triggersTestSchema>;
