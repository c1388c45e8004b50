// Verifiers that are not ours have to agree with us about the envelopes that we make.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bundleFromJSON } from "@sigstore/bundle";
import { toSignedEntity, toTrustMaterial, Verifier } from "@sigstore/verify";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { didKeyOf, type Envelope, type Signer } from "@plumule/protocol";
import { startCommand } from "../support/command-line.ts";
import { signedJobResult, signedProvenance, signerNumber } from "./trust-fixtures.ts";

let alice: Signer;
let bob: Signer;
let envelopes: Envelope[];
const folder = mkdtempSync(join(tmpdir(), "plumule-verifiers-"));
beforeAll(async () => {
  [alice, bob] = await Promise.all([signerNumber(1), signerNumber(2)]);
  envelopes = [await signedJobResult(alice), await signedProvenance(alice)];
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The same envelope with one bit of its payload's 40th byte, or of its signature, changed. */
function changed(envelope: Envelope, part: "payload" | "signature"): Envelope {
  const flip = (base64: string): string => {
    const bytes = Buffer.from(base64, "base64");
    bytes[40] = bytes[40]! ^ 1;
    return bytes.toString("base64");
  };
  const [signature] = envelope.signatures;
  return part === "payload"
    ? { ...envelope, payload: flip(envelope.payload) }
    : { ...envelope, signatures: [{ ...signature!, sig: flip(signature!.sig) }] };
}

describe("sigstore's verifier", () => {
  /** Verifies with a key alone: no transparency log, no time stamp. Throws when it does not hold. */
  function verify(envelope: Envelope, key: Signer): void {
    const spki = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), key.publicKey]);
    const material = toTrustMaterial(
      { mediaType: "", tlogs: [], certificateAuthorities: [], ctlogs: [], timestampAuthorities: [] },
      { runner: { rawBytes: spki, keyDetails: 7 } },
    );
    const verifier = new Verifier(material, { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0 });
    const bundle = bundleFromJSON({
      mediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
      verificationMaterial: { publicKey: { hint: "runner" }, tlogEntries: [] },
      dsseEnvelope: envelope,
    });
    verifier.verify(toSignedEntity(bundle));
  }

  test("accepts a result and a provenance under their runner's key", () => {
    for (const envelope of envelopes) expect(() => verify(envelope, alice)).not.toThrow();
  });

  test("refuses them under another key, with another type, or with one bit changed", () => {
    for (const envelope of envelopes) {
      expect(() => verify(envelope, bob)).toThrow();
      expect(() => verify({ ...envelope, payloadType: "application/json" }, alice)).toThrow();
      for (const part of ["payload", "signature"] as const)
        expect(() => verify(changed(envelope, part), alice)).toThrow();
    }
  });
});

const hasOpenssl = spawnSync("openssl", ["version"]).status === 0;

describe.skipIf(!hasOpenssl)("the recipe for openssl in docs/verify.md", () => {
  const recipe = /three lines check it[^]*?```sh\n([^]*?)```/.exec(
    readFileSync(join(import.meta.dirname, "../../docs/verify.md"), "utf8"),
  )?.[1];

  /** Runs it as it is written, in a folder with the two files that it wants. */
  async function run(envelope: Envelope, key: Signer): Promise<{ status: number | null; stdout: string }> {
    const shown = startCommand(["key", "show", didKeyOf(key.publicKey), "--pem"]);
    expect(await shown.done, shown.err()).toBe(0);
    writeFileSync(join(folder, "runner.pem"), shown.out());
    writeFileSync(join(folder, "envelope.json"), `${JSON.stringify(envelope)}\n`);
    return spawnSync("bash", ["-euo", "pipefail", "-c", recipe ?? "false"], { cwd: folder, encoding: "utf8" });
  }

  test("has three lines, verifies every kind of statement, and leaves what was signed to be read", async () => {
    expect(recipe?.trim().split("\n")).toHaveLength(3);
    for (const envelope of envelopes) {
      expect(await run(envelope, alice)).toMatchObject({ status: 0, stdout: "Signature Verified Successfully\n" });
      expect(readFileSync(join(folder, "payload.json"), "base64")).toBe(envelope.payload);
    }
  });

  test("fails for a changed payload, a changed signature and another key", async () => {
    for (const part of ["payload", "signature"] as const)
      expect((await run(changed(envelopes[0]!, part), alice)).status).not.toBe(0);
    expect((await run(envelopes[0]!, bob)).status).not.toBe(0);
  });
});

test.skipIf(!hasOpenssl)(
  "openssl reads the key that `plumule key show --pem` prints as the same 32 bytes",
  async () => {
    const shown = startCommand(["key", "show", didKeyOf(alice.publicKey), "--pem"]);
    await shown.done;
    const der = execFileSync("openssl", ["pkey", "-pubin", "-outform", "DER"], { input: shown.out() });
    expect(der.subarray(-32)).toEqual(Buffer.from(alice.publicKey));
  },
);
