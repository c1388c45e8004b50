import { didKeyOf, type Envelope, type Signer } from "@plumule/protocol";
import { beforeAll, describe, expect, it } from "vitest";
import { isBelieved, verdictLine } from "../../cli/src/commands/verify.ts";
import type { PinnedKey } from "../../cli/src/trust-store.ts";
import { examine, examinedLines, outcomeOf, readUnverified } from "../../cli/src/verification.ts";
import { plain } from "./cli-fixtures.ts";
import { commit, job, run, signedJobResult, signedProvenance, signerNumber } from "./trust-fixtures.ts";

let signer: Signer;
let did: string;
let pinned: PinnedKey[];
let result: Envelope;
beforeAll(async () => {
  signer = await signerNumber(1);
  did = didKeyOf(signer.publicKey);
  pinned = [{ key: did, name: "king", pinnedAt: "2026-11-20T12:00:00.000Z" }];
  result = await signedJobResult(signer);
});

const tampered = (envelope: Envelope): Envelope => {
  const text = Buffer.from(envelope.payload, "base64").toString().replace('"succeeded"', '"failed"');
  return { ...envelope, payload: Buffer.from(text).toString("base64") };
};

describe("a signed result, looked at", () => {
  it("is verified when it was signed with a key that the reader pinned", async () => {
    const examined = [
      await examine(result, pinned, { job, commit }),
      await examine(await signedProvenance(signer), pinned, { job }),
    ];
    expect([outcomeOf(examined), isBelieved({ examined, summaries: [], judged: null })]).toEqual(["verified", true]);
    expect(plain(verdictLine(examined, "plumule get"))).toBe(
      "✓ 2 statements verified under keys that you pinned  → plumule get",
    );
  });

  it("is never a success under a key that nobody vouches for, however valid", async () => {
    const examined = [await examine(result, [], { job })];
    expect([outcomeOf(examined), isBelieved({ examined, summaries: [], judged: null })]).toEqual(["unpinned", false]);
    expect(examinedLines(examined[0]!).join("\n")).not.toContain("\u001b[32m✓");
    expect(plain(examinedLines(examined[0]!))).toContain("! key-admission   a sound key, but not one that you pinned");
    expect(plain(verdictLine(examined, ""))).toContain(`→ plumule key trust ${did}`);
  });

  it("is not verified when one of several is by a stranger", async () => {
    const examined = [
      await examine(result, pinned, {}),
      await examine(await signedJobResult(await signerNumber(2)), pinned, {}),
    ];
    expect(outcomeOf(examined)).toBe("unpinned");
  });

  it("fails when a byte was changed, and says at which check", async () => {
    const examined = [await examine(tampered(result), pinned, {})];
    expect([outcomeOf(examined), isBelieved({ examined, summaries: [], judged: null })]).toEqual(["failed", false]);
    expect(plain(verdictLine(examined, ""))).toBe("✗ not verified, wrong: signature. Do not rely on this result");
  });

  it("fails when another key signed in its name", async () => {
    const forged = await signedJobResult(await signerNumber(2), {
      runner: { did, version: "1", isolation: null, system: "x" },
    });
    expect(outcomeOf([await examine(forged, pinned, {})])).toBe("failed");
  });

  it("fails when it is about something else, and shows both values", async () => {
    const other = "f".repeat(40);
    const examined = await examine(result, pinned, { job, commit: other, logSha256: "c".repeat(64), logBytes: 1 });
    expect(outcomeOf([examined])).toBe("failed");
    const lines = plain(examinedLines(examined));
    expect(lines).toContain(`✗ subject         not as expected: the commit it is about: ${commit}  expected ${other}`);
    expect(lines).toMatch(/✗ log .*expected sha256:c{64}, 1 bytes/);
    expect(lines).toContain(`✓ job             ${job}`);
  });

  it.each([
    ["nothing", null],
    ["text", "hello"],
    ["no payload", { payload: 1 }],
    ["no base64", { payload: "§" }],
    ["no JSON", { payload: "aGVsbG8=" }],
  ])("fails when it is no envelope: %s", async (_, envelope) => {
    const examined = await examine(envelope, pinned, {});
    expect(outcomeOf([examined])).toBe("failed");
    expect(plain(examinedLines(examined))).toContain("a statement that cannot be read  by nobody");
  });

  it("is a failure when there is no statement at all", () => expect(outcomeOf([])).toBe("failed"));

  it("tells before it is verified which key and run to check it against", async () => {
    expect(readUnverified(result)).toEqual({ signer: did, run });
    expect(readUnverified(await signedProvenance(signer))).toEqual({ signer: did, run });
  });
});
