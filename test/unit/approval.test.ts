import { describe, expect, test } from "vitest";
import { type ApprovedJob, APPROVAL_PAYLOAD_TYPE, signApproval, verifyApproval } from "../../protocol/src/approval.ts";
import { parseBase64, toBase64, utf8 } from "../../protocol/src/bytes.ts";
import { didKeyOf } from "../../protocol/src/did-key.ts";
import { signEnvelope } from "../../protocol/src/dsse.ts";
import { signerNumber } from "./trust-fixtures.ts";

const JOB: ApprovedJob = {
  audience: "https://broker.test/v1/acme",
  namespace: "acme",
  deployment: "pr-1",
  job: "0199c0de-7a11-7000-8abc-0123456789ab",
  commit: "a".repeat(40),
  taskSha256: "b".repeat(64),
};
const [delegate, stranger] = await Promise.all([signerNumber(1), signerNumber(2)]);
const approvers = [didKeyOf(delegate.publicKey)];

describe("an approval", () => {
  test("by a delegate, of this very job, counts", async () => {
    expect(await verifyApproval(await signApproval(JOB, delegate), JOB, approvers)).toEqual({
      ok: true,
      value: approvers[0],
    });
  });

  test.each<[keyof ApprovedJob, string]>([
    ["audience", "https://other.test/v1/acme"],
    ["namespace", "other"],
    ["deployment", "main"],
    ["job", "0199c0de-7a11-7000-8abc-0123456789ac"],
    ["commit", "c".repeat(40)],
    ["taskSha256", "c".repeat(64)],
  ])("of another %s is one of another job", async (field, other) => {
    const envelope = await signApproval({ ...JOB, [field]: other }, delegate);
    expect(await verifyApproval(envelope, JOB, approvers)).toMatchObject({ ok: false, code: "other-job" });
  });

  test("by a stranger does not count, nor by nobody's approver", async () => {
    const envelope = await signApproval(JOB, stranger);
    expect(await verifyApproval(envelope, JOB, approvers)).toMatchObject({ code: "not-an-approver" });
    expect(await verifyApproval(await signApproval(JOB, delegate), JOB, [])).toMatchObject({ code: "not-an-approver" });
  });

  test("that a stranger signs in a delegate's name does not verify", async () => {
    const forged = await signApproval(JOB, { ...delegate, sign: stranger.sign });
    expect(await verifyApproval(forged, JOB, approvers)).toMatchObject({ code: "bad-approval" });
    const named = { ...JOB, approver: approvers[0]! };
    const own = await signEnvelope(APPROVAL_PAYLOAD_TYPE, utf8(JSON.stringify(named)), stranger);
    expect(await verifyApproval(own, JOB, approvers)).toMatchObject({ code: "bad-approval" });
  });

  test("of which any byte is changed does not verify", async () => {
    const envelope = await signApproval(JOB, delegate);
    const payload = parseBase64(envelope.payload)!;
    for (let at = 0; at < payload.length; at += 7) {
      const changed = Uint8Array.from(payload, (byte, index) => (index === at ? byte ^ 1 : byte));
      const verified = await verifyApproval({ ...envelope, payload: toBase64(changed) }, JOB, approvers);
      expect(verified).toMatchObject({ code: "bad-approval" });
    }
  });

  test("is nothing else that the same key signed, and nothing else is one", async () => {
    const { payload } = await signApproval(JOB, delegate);
    const session = await signEnvelope("application/vnd.plumule.session+json", parseBase64(payload)!, delegate);
    expect(await verifyApproval(session, JOB, approvers)).toMatchObject({ code: "bad-approval" });
    for (const junk of [null, {}, { ...session, signatures: [] }, "x"])
      expect(await verifyApproval(junk, JOB, approvers)).toMatchObject({ code: "bad-approval" });
  });

  test("under a key that accepts every signature does not count, though it be listed", async () => {
    const identity = "did:key:z6MkeXATEjyXENzBXBxgC5EHk2JE5aqd7qMGGtDpLUH1e2Sj";
    const envelope = await signApproval(JOB, delegate);
    const forged = { ...envelope, signatures: [{ keyid: identity, sig: toBase64(new Uint8Array(64).fill(1, 0, 1)) }] };
    expect(await verifyApproval(forged, JOB, [identity])).toMatchObject({ code: "bad-approval" });
  });
});
