import * as z from "zod";
import { envelopeSchema } from "./dsse.ts";

/**
 * What a policy says of the statements about one job or commit. `pending`: no trusted key has spoken yet; `insufficient`: some have, but
 * fewer agree than are needed; `diverged`: trusted keys say different things about the same inputs; `revoked`: it would be agreed, had
 * no key been revoked; `expired`: the policy is out of date and says nothing.
 */
export const VERDICTS = ["pending", "agreed", "diverged", "insufficient", "expired", "revoked"] as const;
export type Verdict = (typeof VERDICTS)[number];

/** How a statement of a trusted key counts, or why it does not. */
export const STANDINGS = [
  "counted",
  "not-succeeded",
  "not-comparable",
  "equivocated",
  "operator-divided",
  "outside-validity",
  "wrong-builder",
  "wrong-purpose",
  "revoked",
] as const;
export type Standing = (typeof STANDINGS)[number];

/** One output in the version of one group of votes; null where the group has no such output. */
const versionSchema = z
  .object({ path: z.string(), narHash: z.string(), narSize: z.number() })
  .nullable()
  .meta({ id: "OutputVersion" });

/**
 * A verdict as a job shows it: the matrix of votes, the groups that say the same, and of the outputs only those that differ, one version per group in
 * the order of `groups`. `differingCount` counts them all. `inputs` are not shown: votes about other inputs stand as `not-comparable`.
 */
export const verdictViewSchema = z
  .object({
    verdict: z.enum(VERDICTS),
    detail: z.string(),
    policyVersion: z.int(),
    compare: z.enum(["outputs", "result"]).nullable(),
    needed: z.int().nullable(),
    agreeing: z.int(),
    diverging: z.boolean(),
    votes: z.array(
      z.object({
        signer: z.string(),
        operator: z.string(),
        sha256: z.string(),
        result: z.string(),
        finishedAt: z.string(),
        standing: z.enum(STANDINGS),
        group: z.int().nullable(),
      }),
    ),
    groups: z.array(z.object({ operators: z.array(z.string()), outputCount: z.int() })),
    differing: z.array(z.object({ name: z.string(), versions: z.array(versionSchema) })),
    differingCount: z.int(),
    strangers: z.array(z.object({ signer: z.string(), sha256: z.string() })),
  })
  .meta({ id: "Verdict" });
export type VerdictView = z.output<typeof verdictViewSchema>;

/** A verdict that the broker signed: a DSSE envelope around a summary (`verdict-summary.ts`). */
export const signedSummarySchema = envelopeSchema.meta({ id: "SignedSummary" });

/** A key that said two different things of the same, and the two envelopes that prove it to anybody. */
export const equivocationViewSchema = z
  .object({ signer: z.string(), about: z.string(), envelopes: z.tuple([envelopeSchema, envelopeSchema]) })
  .meta({ id: "Equivocation" });
export type EquivocationView = z.output<typeof equivocationViewSchema>;
