import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { digestsOf, jobIdentity, type JobWork, standaloneBodySchema } from "@plumule/protocol";
import { beforeAll, describe, expect, test } from "vitest";
import { utf8 } from "../../protocol/src/bytes.ts";
import { didKeyOf } from "../../protocol/src/did-key.ts";
import { type Envelope, parseEnvelope, signEnvelope } from "../../protocol/src/dsse.ts";
import type { Signer } from "../../protocol/src/ed25519.ts";
import { STATEMENT_PAYLOAD_TYPE } from "../../protocol/src/statements.ts";
import {
  CHECK_NAMES,
  type CheckName,
  type Expected,
  type Verification,
  verifyStatement,
} from "../../protocol/src/verify.ts";
import { readUnverified } from "../../cli/src/verification.ts";
import { commit, job, jobResultInput, run, signedJobResult, signedProvenance, signerNumber } from "./trust-fixtures.ts";

let alice: Signer;
let bob: Signer;
let did: string;
beforeAll(async () => {
  [alice, bob] = await Promise.all([signerNumber(1), signerNumber(2)]);
  did = didKeyOf(alice.publicKey);
});

const failures = (verification: Verification): CheckName[] =>
  verification.checks.filter((check) => !check.ok).map((check) => check.name);

describe("verifying a statement", () => {
  test("passes every check against what the reader knows, and shows each", async () => {
    const { outputs } = jobResultInput(did);
    const expected: Expected = {
      namespace: "acme",
      deployment: "web",
      job,
      run,
      epoch: 7,
      commit,
      taskSha256: "a".repeat(64),
      logSha256: "b".repeat(64),
      logBytes: 98_765,
      outputs,
    };
    const verified = await verifyStatement(await signedJobResult(alice), { signers: [bob.publicKey, did], expected });
    expect(verified).toMatchObject({
      ok: true,
      signer: did,
      claims: { job, run, result: "succeeded", builderId: `${did}#bwrap-v1` },
    });
    expect(verified.checks.map((check) => check.name)).toEqual(CHECK_NAMES.filter((name) => name !== "identity"));
    expect(failures(verified)).toEqual([]);
  });

  test("works alike for a provenance", async () => {
    const { outputs } = jobResultInput(did);
    const expected: Expected = {
      namespace: "acme",
      deployment: "web",
      job,
      run,
      epoch: 7,
      commit,
      logSha256: "b".repeat(64),
      logBytes: 98_765,
      outputs,
    };
    expect(await verifyStatement(await signedProvenance(alice), { signers: [did], expected })).toMatchObject({
      ok: true,
      signer: did,
    });
  });

  test.each<[CheckName, Expected]>([
    ["namespace", { namespace: "other" }],
    ["deployment", { deployment: "other" }],
    ["job", { job: "0199a0b1-c2d3-7000-8abc-000000000000" }],
    ["run", { run: "0199a0b1-c2d3-7002-8abc-0123456789ab" }],
    ["epoch", { epoch: 8 }],
    ["subject", { commit: "0".repeat(40) }],
    ["subject", { commit: null }],
    ["task", { taskSha256: "0".repeat(64) }],
    ["log", { logSha256: "0".repeat(64) }],
    ["log", { logBytes: 98_764 }],
    ["outputs", { outputs: [] }],
    [
      "outputs",
      {
        outputs: [
          {
            name: "out",
            path: "/nix/store/vvph8axw8hmsl7afqa1fgk0j69wjfx26-r-a",
            narHash: "0".repeat(64),
            narSize: 120,
          },
        ],
      },
    ],
  ])("fails the check %s and no other when %j is expected", async (name, expected) => {
    const verified = await verifyStatement(await signedJobResult(alice), { signers: [did], expected });
    expect(verified.ok).toBe(false);
    expect(failures(verified)).toEqual([name]);
    const check = verified.checks.find((candidate) => candidate.name === name)!;
    expect(check.expected).not.toBe(check.actual);
  });

  test("compares outputs in any order", async () => {
    const [first] = jobResultInput(did).outputs;
    const second = { ...first!, name: "dev", path: "/nix/store/dev" };
    const envelope = await signedJobResult(alice, { outputs: [first!, second] });
    expect(await verifyStatement(envelope, { signers: [did], expected: { outputs: [second, first!] } })).toMatchObject({
      ok: true,
    });
  });

  test("fails when a trusted key signs in another runner's name", async () => {
    const { runner } = jobResultInput(didKeyOf(bob.publicKey));
    const envelope = await signedJobResult(alice, { runner });
    expect(failures(await verifyStatement(envelope, { signers: [alice.publicKey, bob.publicKey] }))).toEqual([
      "runner",
    ]);
  });

  test("fails when a run ended before it started", async () => {
    const envelope = await signedJobResult(alice, { finishedAt: "2026-11-20T09:59:59.999Z" });
    expect(failures(await verifyStatement(envelope, { signers: [did] }))).toEqual(["times"]);
  });

  test("fails for a signer that the reader did not choose, and reads nothing", async () => {
    const verified = await verifyStatement(await signedJobResult(alice), { signers: [bob.publicKey] });
    expect(failures(verified)).toEqual(["signature"]);
    expect(verified).not.toHaveProperty("statement");
  });

  test.each<[string, string[]]>([
    ["nobody", []],
    [
      "a weak key beside a good one",
      [
        "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
        "did:key:z6MkeXATEjyXENzBXBxgC5EHk2JE5aqd7qMGGtDpLUH1e2Sj",
      ],
    ],
    ["text that is no key", ["alice"]],
  ])("fails when the reader trusts %s", async (_, signers) => {
    expect(failures(await verifyStatement(await signedJobResult(alice), { signers }))).toEqual(["key-admission"]);
  });

  test.each<[CheckName, unknown]>([
    [
      "predicate-type",
      {
        _type: "https://in-toto.io/Statement/v1",
        subject: [{ digest: { gitCommit: commit } }],
        predicateType: "https://example.org/x",
        predicate: {},
      },
    ],
    [
      "statement",
      {
        _type: "https://in-toto.io/Statement/v0.1",
        subject: [{ digest: { gitCommit: commit } }],
        predicateType: "https://plumule.dev/job-result/v1",
        predicate: {},
      },
    ],
    [
      "statement",
      {
        _type: "https://in-toto.io/Statement/v1",
        subject: [],
        predicateType: "https://plumule.dev/job-result/v1",
        predicate: {},
      },
    ],
    [
      "statement",
      {
        _type: "https://in-toto.io/Statement/v1",
        subject: [{ digest: { md5: "d41d8cd98f00b204e9800998ecf8427e" } }],
        predicateType: "https://plumule.dev/job-result/v1",
        predicate: {},
      },
    ],
    [
      "statement",
      {
        _type: "https://in-toto.io/Statement/v1",
        subject: [{ digest: { gitCommit: commit } }],
        predicateType: "https://plumule.dev/job-result/v1",
        predicate: {},
      },
    ],
    ["statement", 7],
  ])("fails the check %s for the signed document %j", async (name, document) => {
    const envelope = await signEnvelope(STATEMENT_PAYLOAD_TYPE, utf8(JSON.stringify(document)), alice);
    expect(failures(await verifyStatement(envelope, { signers: [did] }))).toEqual([name]);
  });

  test("fails for another payload type", async () => {
    const envelope = await signEnvelope("application/json", utf8("{}"), alice);
    expect(failures(await verifyStatement(envelope, { signers: [did] }))).toEqual(["payload-type"]);
  });

  test("fails after any one byte of the envelope is changed; only the name of the unsigned keyid does not matter", async () => {
    const envelope = await signedJobResult(alice);
    const text = JSON.stringify(envelope);
    const keyid = text.indexOf('"keyid"');
    const keyidEnd = text.indexOf(":", keyid);
    const survivors: number[] = [];
    for (let at = 0; at < text.length; at++) {
      const bytes = utf8(text);
      bytes[at] = bytes[at]! ^ 1;
      const parsed = parseEnvelope(bytes);
      const verified = parsed.ok ? await verifyStatement(parsed.value, { signers: [did] }) : null;
      if (verified === null) continue;
      if (verified.ok) survivors.push(at);
      else expect(failures(verified)).toHaveLength(1);
    }
    expect(survivors.length).toBeGreaterThan(0);
    expect(survivors.every((at) => at > keyid && at < keyidEnd)).toBe(true);
  });

  test("gives the same identity to the same statement in another spelling", async () => {
    const envelope: Envelope = await signedJobResult(alice);
    const respelled = {
      ...envelope,
      payload: envelope.payload.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, ""),
      signatures: [{ sig: envelope.signatures[0]!.sig }],
    };
    const [first, second] = await Promise.all(
      [envelope, respelled].map((each) => verifyStatement(each, { signers: [did] })),
    );
    expect(first).toMatchObject({ ok: true, sha256: expect.stringMatching(/^[0-9a-f]{64}$/) as string });
    expect(second).toEqual(first);
  });
});

describe("a result of a run without a lease", () => {
  const recorded = new URL("../../protocol/fixtures/v2/StandaloneBody.json", import.meta.url);
  const body = standaloneBodySchema.parse(JSON.parse(readFileSync(recorded, "utf8")));
  const signer = readUnverified(body.result.statements[0]).signer ?? "";
  const verify = (expected: Expected, envelope: unknown = body.result.statements[0]): Promise<Verification> =>
    verifyStatement(envelope, { signers: [signer, did], expected });
  const source = { repository: "rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5", commit: "1234567890".repeat(4) };
  let work: JobWork;
  let identity: string;
  beforeAll(async () => {
    work = { ...source, ...(await digestsOf(body.spec)) };
    identity = await jobIdentity(work);
  });

  test("names its work by the digest that anybody can make", async () => {
    // Made as docs/protocol.md says, by other means.
    const text = `{"commit":"${source.commit}","configurationSha256":null,"repository":"${source.repository}","taskSha256":"${work.taskSha256}"}`;
    expect(createHash("sha256").update(`plumule-job-identity-v1\n${text}`).digest("hex")).toBe(identity);
    expect(identity).toBe("c3a9faf74bd8e562a1a7ac6d2c4e47a683ffb5d21268742d60a729e553177c42");
    const verified = await verify({ epoch: 0, identity, job: body.job, run: body.run, commit: source.commit });
    expect(verified).toMatchObject({ ok: true, claims: { epoch: 0, identity } });
    expect(verified.checks.find(({ name }) => name === "identity")).toMatchObject({ ok: true, actual: identity });
  });

  test.each(["repository", "commit", "taskSha256", "configurationSha256"] as const)(
    "is of other work with another %s",
    async (name) => {
      const value =
        name === "repository" ? "rad:z2hCUNw2T1qU31LyGy7VPEiS7BkxW" : "f".repeat(name === "commit" ? 40 : 64);
      expect(failures(await verify({ identity: await jobIdentity({ ...work, [name]: value }) }))).toEqual(["identity"]);
    },
  );

  test("is no result under a lease, nor is one of those a result without", async () => {
    for (const epoch of [1, 7]) expect(failures(await verify({ epoch }))).toEqual(["epoch"]);
    const leased = await signedJobResult(alice);
    expect(failures(await verify({ epoch: 0 }, leased))).toEqual(["epoch"]);
    expect(failures(await verify({ identity }, leased))).toEqual(["identity"]);
  });

  test("has an identity exactly where it has no lease, and that of what it says", async () => {
    await expect(signedJobResult(alice, { epoch: 0 })).rejects.toThrow("identity");
    await expect(signedJobResult(alice, { identity })).rejects.toThrow("identity");
    const other = await signedJobResult(alice, { epoch: 0, identity });
    expect(failures(await verify({}, other))).toEqual(["identity"]);
  });
});
