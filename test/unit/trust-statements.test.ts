import { beforeAll, describe, expect, test } from "vitest";
import { parseUtf8 } from "../../protocol/src/bytes.ts";
import { readStatement } from "../../protocol/src/claims.ts";
import { didKeyOf } from "../../protocol/src/did-key.ts";
import type { Signer } from "../../protocol/src/ed25519.ts";
import { draftJobResult, type JobResultInput } from "../../protocol/src/job-result.ts";
import { draftProvenance } from "../../protocol/src/provenance.ts";
import { TRUST_LIMITS } from "../../protocol/src/trust-limits.ts";
import { verifyStatement } from "../../protocol/src/verify.ts";
import {
  commit,
  job,
  jobResultInput,
  narHash,
  provenanceInput,
  run,
  signedJobResult,
  signerNumber,
} from "./trust-fixtures.ts";

let alice: Signer;
let did: string;
beforeAll(async () => {
  alice = await signerNumber(1);
  did = didKeyOf(alice.publicKey);
});

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
