import { beforeAll, describe, expect, test } from "vitest";
import { parseUtf8, utf8 } from "../../protocol/src/bytes.ts";
import { readStatement } from "../../protocol/src/claims.ts";
import { didKeyOf } from "../../protocol/src/did-key.ts";
import { type Envelope, parseEnvelope, signEnvelope } from "../../protocol/src/dsse.ts";
import type { Signer } from "../../protocol/src/ed25519.ts";
import { draftJobResult, type JobResultInput } from "../../protocol/src/job-result.ts";
import { draftProvenance } from "../../protocol/src/provenance.ts";
import { STATEMENT_PAYLOAD_TYPE } from "../../protocol/src/statements.ts";
import { TRUST_LIMITS } from "../../protocol/src/trust-limits.ts";
import {
  CHECK_NAMES,
  type CheckName,
  type Expected,
  type Verification,
  verifyStatement,
} from "../../protocol/src/verify.ts";
import {
  commit,
  job,
  jobResultInput,
  narHash,
  provenanceInput,
  run,
  signedJobResult,
  signedProvenance,
  signerNumber,
} from "./trust-fixtures.ts";

let alice: Signer;
let bob: Signer;
let did: string;
beforeAll(async () => {
  [alice, bob] = await Promise.all([signerNumber(1), signerNumber(2)]);
  did = didKeyOf(alice.publicKey);
});

const failures = (verification: Verification): CheckName[] =>
  verification.checks.filter((check) => !check.ok).map((check) => check.name);

describe("a job result", () => {
  test("has these bytes, which are a contract", () => {
    const draft = draftJobResult(
      jobResultInput("did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK", { flakeLockSha256: "c".repeat(64) }),
    );
    expect(draft.ok && parseUtf8(draft.value.bytes)).toBe(
      [
        '{"_type":"https://in-toto.io/Statement/v1",',
        `"subject":[{"name":"rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5","digest":{"gitCommit":"${commit}"}}],`,
        '"predicateType":"https://plumule.dev/job-result/v1",',
        `"predicate":{"namespace":"acme","deployment":"web","job":"${job}","run":"${run}","epoch":7,"kind":"nix-build",`,
        `"result":"succeeded","exitCode":0,"reason":null,"taskSha256":"${"a".repeat(64)}","configurationSha256":null,`,
        '"startedAt":"2026-11-20T10:00:00.000Z","finishedAt":"2026-11-20T10:01:30.000Z",',
        '"runner":{"did":"did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK","version":"0.1.0","isolation":"bwrap","system":"x86_64-linux","nix":"2.34.8"},',
        `"log":{"sha256":"${"b".repeat(64)}","bytes":98765,"truncated":false},`,
        `"outputs":[{"name":"out","path":"/nix/store/vvph8axw8hmsl7afqa1fgk0j69wjfx26-r-a","narHash":"${narHash}","narSize":120}],`,
        `"flakeLockSha256":"${"c".repeat(64)}"}}`,
      ].join(""),
    );
  });

  test("is about the task when there is no commit", () => {
    const draft = draftJobResult(jobResultInput(did, { source: null }));
    expect(draft.ok && draft.value.statement.subject).toEqual([{ name: "task", digest: { sha256: "a".repeat(64) } }]);
  });

  test("carries a reason whose text was cut inside a character", async () => {
    const envelope = await signedJobResult(alice, {
      result: "failed",
      exitCode: 1,
      reason: { code: "build-failed", detail: "\ud83d" },
      outputs: [],
    });
    const verified = await verifyStatement(envelope, { signers: [did] });
    expect(verified).toMatchObject({ ok: true, statement: { predicate: { reason: { detail: "\ufffd" } } } });
  });

  test.each<[string, Partial<JobResultInput>]>([
    ["an upper-case commit", { source: { repository: "r", commit: commit.toUpperCase() } }],
    ["a short commit", { source: { repository: "r", commit: commit.slice(1) } }],
    ["epoch 0", { epoch: 0 }],
    ["a fractional exit code", { exitCode: 0.5 }],
    [
      "a NAR hash that is not hex",
      { outputs: [{ name: "out", path: "/nix/store/x", narHash: "sha256-x", narSize: 1 }] },
    ],
    ["a time with an offset", { startedAt: "2026-11-20T10:00:00+01:00" }],
    [
      "513 outputs",
      {
        outputs: Array.from({ length: TRUST_LIMITS.subjects + 1 }, () => ({
          name: "o",
          path: "/p",
          narHash,
          narSize: 1,
        })),
      },
    ],
  ])("with %s is not drafted", (_, changes) => {
    expect(draftJobResult(jobResultInput(did, changes))).toMatchObject({ ok: false, code: "invalid-statement" });
  });

  test("beyond the size limit is not drafted", () => {
    const outputs = Array.from({ length: 400 }, (_, index) => ({
      name: `o${index}`,
      path: `/nix/store/${"x".repeat(200)}`,
      narHash,
      narSize: 1,
    }));
    expect(draftJobResult(jobResultInput(did, { outputs }))).toMatchObject({ ok: false, code: "statement-too-large" });
  });
});

describe("a provenance", () => {
  test("has the shape of SLSA Provenance v1", () => {
    const draft = draftProvenance(
      provenanceInput(did, {
        flakeLockSha256: "c".repeat(64),
        drv: { path: "/nix/store/d.drv", sha256: "d".repeat(64) },
        inputs: [{ name: "nixpkgs", uri: "github:NixOS/nixpkgs", commit }],
      }),
    );
    expect(draft.ok && JSON.parse(parseUtf8(draft.value.bytes)!)).toEqual({
      _type: "https://in-toto.io/Statement/v1",
      subject: [
        {
          name: "out",
          uri: "nix:/nix/store/vvph8axw8hmsl7afqa1fgk0j69wjfx26-r-a",
          digest: { sha256: narHash },
          annotations: {
            narHash: "sha256-EFUdrtf6Rn0LWIJufrmg8q99aT3jGfLvd1//zaJEufY=",
            narSize: 120,
            drvPath: "/nix/store/3ixdp6255ll096zizlzdy4nmyxaiaqgs-r-a.drv",
          },
        },
      ],
      predicateType: "https://slsa.dev/provenance/v1",
      predicate: {
        buildDefinition: {
          buildType: "https://plumule.dev/buildtypes/nix/v1",
          externalParameters: {
            repository: "rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5",
            ref: "refs/heads/main",
            patch: null,
            attribute: "packages.x86_64-linux.default",
          },
          internalParameters: {
            system: "x86_64-linux",
            sandbox: true,
            namespace: "acme",
            deployment: "web",
            job,
            run,
            epoch: 7,
            nixVersion: "2.34.8",
          },
          resolvedDependencies: [
            {
              name: "source",
              uri: "git+rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5@refs/heads/main",
              digest: { gitCommit: commit, gitTree: "1".repeat(40) },
            },
            { name: "flake.lock", digest: { sha256: "c".repeat(64) } },
            { name: "drv", uri: "nix:/nix/store/d.drv", digest: { sha256: "d".repeat(64) } },
            { name: "inputs/nixpkgs", uri: "github:NixOS/nixpkgs", digest: { gitCommit: commit } },
          ],
        },
        runDetails: {
          builder: { id: `${did}#bwrap-v1`, version: { runner: "0.1.0", nix: "2.34.8" } },
          metadata: {
            invocationId: `urn:uuid:${job}/7`,
            startedOn: "2026-11-20T10:00:00.000Z",
            finishedOn: "2026-11-20T10:01:30.000Z",
          },
          byproducts: [
            {
              name: "log",
              mediaType: "text/plain",
              digest: { sha256: "b".repeat(64) },
              annotations: { bytes: 98_765, truncated: false },
            },
          ],
        },
      },
    });
  });

  test("with an unknown external parameter is refused, with other unknown fields it is read", () => {
    const draft = draftProvenance(provenanceInput(did));
    if (!draft.ok) throw new Error(draft.detail);
    const { statement } = draft.value;
    const { buildDefinition } = statement.predicate;
    const extended = (externalParameters: object): unknown => ({
      ...statement,
      plumule_note: 1,
      predicate: {
        ...statement.predicate,
        plumule_more: {},
        buildDefinition: { ...buildDefinition, externalParameters },
      },
    });
    expect(readStatement(extended(buildDefinition.externalParameters)).ok).toBe(true);
    expect(readStatement(extended({ ...buildDefinition.externalParameters, impure: true }))).toMatchObject({
      ok: false,
      code: "statement",
    });
  });
});

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
    expect(verified.checks.map((check) => check.name)).toEqual(CHECK_NAMES);
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

  test("fails after any one byte of the envelope is changed; only the unsigned keyid does not matter", async () => {
    const envelope = await signedJobResult(alice);
    const text = JSON.stringify(envelope);
    const keyid = text.indexOf('"keyid"');
    const keyidEnd = text.indexOf(",", keyid);
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
