import { type ErrorCode, refuse, type Refusal, type RunnerId, verifyApproval, type Envelope } from "@plumule/protocol";
import type { Job, Lane } from "./core/model.ts";

const CODES = {
  "bad-approval": "bad-signature",
  "not-an-approver": "forbidden",
  "other-job": "invalid-statement",
} as const satisfies Record<string, ErrorCode>;

/** Who approves this very job, or why the envelope does not count. */
export async function checkApproval(
  { envelope, audience }: { envelope: Envelope; audience: string },
  { namespace, deployment }: Lane,
  { id, brief, taskSha256 }: Job,
): Promise<RunnerId | Refusal> {
  const { stranger, source } = brief;
  const approved = { audience, namespace, deployment, job: id, commit: source?.commit ?? "", taskSha256 };
  const verified = await verifyApproval(envelope, approved, stranger?.approvers ?? []);
  if (verified.ok) return verified.value;
  return refuse(CODES[verified.code], `The approval does not count: ${verified.detail}.`, {
    errors: [{ pointer: "/approval", detail: verified.detail }],
    next: "Sign this very job as a delegate: plumule approve JOB --key FILE.",
  });
}
