import * as fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import {
  AUDIT_HEAD_PAYLOAD_TYPE,
  AUDIT_START,
  auditDigest,
  type AuditVerdict,
  linkAuditEntry,
  verifyAudit,
} from "../../protocol/src/audit.ts";
import { utf8 } from "../../protocol/src/bytes.ts";
import { signEnvelope } from "../../protocol/src/dsse.ts";
import type { Signer } from "../../protocol/src/ed25519.ts";
import { signerNumber } from "./trust-fixtures.ts";

const AT = "2026-11-20T10:00:00.000Z";
let broker: Signer;
let forger: Signer;
let entries: string[];
let lines: string[];

function chain(count: number, actor = "token:abc"): string[] {
  const made: string[] = [];
  for (let sequence = 1; sequence <= count; sequence += 1) {
    const previous = sequence === 1 ? null : { sequence: sequence - 1, entry: made[sequence - 2] ?? "" };
    made.push(
      linkAuditEntry(
        { at: AT, actor, action: "token.created", target: `tokens/${sequence}`, before: null, after: AUDIT_START },
        previous,
      ),
    );
  }
  return made;
}

async function head(sequence: number, signer = broker, of = entries, namespace = "acme"): Promise<string> {
  const payload = { namespace, sequence, sha256: auditDigest(of[sequence - 1] ?? ""), at: AT };
  const envelope = await signEnvelope(AUDIT_HEAD_PAYLOAD_TYPE, utf8(JSON.stringify(payload)), signer);
  return JSON.stringify({ head: envelope });
}

const rows = (from: readonly string[]): string[] => from.map((entry) => JSON.stringify({ entry }));
const verify = (of: readonly string[], namespace: string | null = "acme"): Promise<AuditVerdict> =>
  verifyAudit(of, { keys: [broker.publicKey], namespace });

beforeAll(async () => {
  [broker, forger] = await Promise.all([signerNumber(1), signerNumber(2)]);
  entries = chain(12);
  const all = rows(entries);
  lines = [...all.slice(0, 4), await head(4), ...all.slice(4, 10), await head(10), ...all.slice(10)];
});

describe("an audit log", () => {
  it("verifies from its first row, and says how far it is signed", async () => {
    expect(await verify(lines)).toEqual({ first: 1, last: 12, begins: "start", signedThrough: 10, fault: null });
  });

  it("verifies behind a signed head when what was before is gone, and says so when nobody vouches for the start", async () => {
    const checkpoint = lines.slice(4);
    expect(await verify(checkpoint)).toEqual({
      first: 5,
      last: 12,
      begins: "checkpoint",
      signedThrough: 10,
      fault: null,
    });
    expect(await verify(checkpoint.slice(1))).toMatchObject({ first: 5, begins: "unknown", fault: null });
  });

  it("is empty or unsigned without being wrong", async () => {
    expect(await verify([])).toEqual({ first: 0, last: 0, begins: "unknown", signedThrough: 0, fault: null });
    expect(await verify(rows(entries))).toMatchObject({ last: 12, signedThrough: 0, fault: null });
  });

  it("has its digest by any SHA-256", async () => {
    expect(auditDigest("abc")).toBe("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  });

  it("does not fit at the first row behind one that was changed, taken out, put in or moved", async () => {
    const all = rows(entries);
    const changed = [...all];
    changed[5] = JSON.stringify({ entry: (entries[5] ?? "").replace("token:abc", "token:xyz") });
    expect((await verify(changed)).fault).toMatchObject({ line: 7, sequence: 7 });
    expect((await verify(all.toSpliced(5, 1))).fault).toMatchObject({
      line: 6,
      sequence: 7,
      detail: "row 6 is missing or out of place",
    });
    expect((await verify(all.toSpliced(5, 0, all[4] ?? ""))).fault).toMatchObject({ line: 6, sequence: 5 });
    expect((await verify([...all.slice(0, 4), all[5] ?? "", all[4] ?? ""])).fault).toMatchObject({
      line: 5,
      sequence: 6,
    });
  });

  it("that was made anew from some row on is told by what was signed", async () => {
    const forged = chain(12, "token:xyz");
    expect((await verify([...rows(forged), await head(10)])).fault).toMatchObject({
      line: 13,
      sequence: 10,
      detail: "row 10 is another one than was signed",
    });
    expect((await verify([...rows(forged), await head(10, forger, forged)])).fault?.detail).toMatch(
      /the head is not believed/,
    );
  });

  it("that was cut off is missed by a head over what is gone", async () => {
    const cut = lines.filter((_, at) => at < 8 || at === 11);
    expect((await verify(cut)).fault).toMatchObject({ detail: "rows 8 to 10 were signed and are missing" });
  });

  it("of another namespace is another log", async () => {
    expect((await verify(lines, "other")).fault).toMatchObject({ line: 5, sequence: 4 });
    expect((await verify(lines, null)).fault).toBeNull();
  });

  it.each([
    "",
    "{}",
    "null",
    "[1]",
    '{"entry":"{"}',
    '{"entry":"{}"}',
    '{"head":{}}',
    '{"entry":1}',
    '{"entry":"{}","entry":"{}"}',
  ])("does not fit where a line is %j", async (line) => {
    expect((await verify([...lines, line])).fault).toMatchObject({ line: lines.length + 1 });
  });

  it("does not fit whatever single character of a signed row is changed", async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(9), fc.nat(400), fc.constantFrom("0", "f", "x", '"', " "), async (row, at, character) => {
        const text = entries[row] ?? "";
        const where = at % text.length;
        if (text[where] === character) return;
        const forged = [...entries];
        forged[row] = text.slice(0, where) + character + text.slice(where + 1);
        const verdict = await verify([...rows(forged), await head(10)]);
        expect(verdict.fault).not.toBeNull();
      }),
      { numRuns: 60 },
    );
  });
});
