import * as z from "zod";
import { utf8 } from "./bytes.ts";
import { didKeyOf } from "./did-key.ts";
import { describeIssues, type Envelope, envelopeSchema, openEnvelope, signEnvelope } from "./dsse.ts";
import type { Signer } from "./ed25519.ts";
import {
  commitSchema,
  deploymentIdSchema,
  jobIdSchema,
  namespaceIdSchema,
  poolNameSchema,
  runnerIdSchema,
  sha256Schema,
  timeSchema,
} from "./ids.ts";
import { admitDidKey } from "./key-admission.ts";
import { LIMITS } from "./limits.ts";
import { accepted, refused, type Result } from "./result.ts";
import { isolationSchema } from "./submit.ts";
import { TRUST_LIMITS } from "./trust-limits.ts";

/** What a runner offers whose operator lets approved jobs of strangers in, and what each of these jobs needs. */
export const UNTRUSTED_FEATURE = "untrusted";

const people = z.array(runnerIdSchema).max(LIMITS.delegates).optional();

/**
 * Whose jobs a rule starts without asking, and what becomes of those of strangers. `delegates` take the place of those that the webhook
 * names; `trusted` are further authors, and with `followed` all whom the sender's node follows. Delegates and `approvers` approve.
 * An approved job of a stranger runs at `isolation` or above and, where one is named, in a `pool` of its own.
 */
export const approvalRuleSchema = z
  .strictObject({
    delegates: people,
    trusted: people,
    followed: z.boolean().optional(),
    approvers: people,
    isolation: isolationSchema.optional(),
    pool: poolNameSchema.optional(),
  })
  .meta({ id: "ApprovalRule" });
export type ApprovalRule = z.output<typeof approvalRuleSchema>;

/** What is known of the stranger whose job it is: the author that the webhook named, who may approve, and who has. */
export const strangerViewSchema = z.object({
  author: z.string().nullable(),
  approvers: z.array(runnerIdSchema),
  approvedBy: runnerIdSchema.nullable(),
  approvedAt: timeSchema.nullable(),
});
export type StrangerView = z.output<typeof strangerViewSchema>;

/** An approval as it travels: a DSSE envelope. */
export const signedApprovalSchema = envelopeSchema.meta({ id: "SignedApproval" });

/** The signed bytes start with it, so that an approval is no statement, session or push, and none of these is an approval. */
export const APPROVAL_PAYLOAD_TYPE = "application/vnd.plumule.approval+json";

/**
 * What an approver signs: this job, about this commit, doing this task, at this broker (`audience` is `<broker origin>/v1/{ns}`). Another
 * revision is another commit and another job, which nobody has looked at yet.
 */
export const approvalSchema = z.strictObject({
  audience: z.string().min(1).max(TRUST_LIMITS.pathCharacters),
  namespace: namespaceIdSchema,
  deployment: deploymentIdSchema,
  job: jobIdSchema,
  commit: commitSchema,
  taskSha256: sha256Schema,
  approver: runnerIdSchema,
});
export type Approval = z.output<typeof approvalSchema>;
/** What an approval has to be about. */
export type ApprovedJob = Omit<Approval, "approver">;

/** Signs an approval with a Radicle key. */
export async function signApproval(job: ApprovedJob, signer: Signer): Promise<Envelope> {
  const approval: Approval = { ...job, approver: didKeyOf(signer.publicKey) };
  return signEnvelope(APPROVAL_PAYLOAD_TYPE, utf8(JSON.stringify(approval)), signer);
}

/** `bad-approval`: no signature of the approver that it names; `other-job`: signed, but about something else. */
export type ApprovalRefusal = "bad-approval" | "not-an-approver" | "other-job";

/**
 * Verifies an approval of exactly this job by one of `approvers` (did:key); the value is who approved. Whom it names is believed because the
 * signature verifies under that key.
 */
export async function verifyApproval(
  envelope: unknown,
  expected: ApprovedJob,
  approvers: readonly string[],
): Promise<Result<string, ApprovalRefusal>> {
  const claimed = envelopeSchema.safeParse(envelope).data?.signatures[0]?.keyid ?? "";
  const key = admitDidKey(claimed);
  if (!key.ok) return refused("bad-approval", `the envelope's keyid has to be the approver's did:key: ${key.detail}`);
  const opened = await openEnvelope(envelope, { keys: [key.value], payloadTypes: [APPROVAL_PAYLOAD_TYPE] });
  if (!opened.ok) return refused("bad-approval", opened.detail);
  const parsed = approvalSchema.safeParse(opened.value.value);
  if (!parsed.success) return refused("bad-approval", describeIssues(parsed.error));
  const { approver, ...approved } = parsed.data;
  if (approver !== claimed) return refused("bad-approval", `it names ${approver}, but is signed by ${claimed}`);
  if (!approvers.includes(approver))
    return refused("not-an-approver", `${approver} is neither a delegate of the repository nor named as an approver`);
  for (const field of ["audience", "namespace", "deployment", "job", "commit", "taskSha256"] as const)
    if (approved[field] !== expected[field])
      return refused("other-job", `it is for the ${field} ${approved[field]}, not ${expected[field]}`);
  return accepted(approver);
}
