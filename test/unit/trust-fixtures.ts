import { draftJobResult, type JobResultInput } from "../../protocol/src/job-result.ts";
import { draftProvenance, type ProvenanceInput } from "../../protocol/src/provenance.ts";
import type { Claims, SignedClaims } from "../../protocol/src/claims.ts";
import type { TrustedSigner, TrustPolicy, TrustRule } from "../../protocol/src/trust.ts";
import { didKeyOf } from "../../protocol/src/did-key.ts";
import { type Envelope, signEnvelope } from "../../protocol/src/dsse.ts";
import { type Signer, signerFromSeed } from "../../protocol/src/ed25519.ts";
import { STATEMENT_PAYLOAD_TYPE } from "../../protocol/src/statements.ts";

/** A signer that is the same in every run: its seed is one byte, 32 times. */
export function signerNumber(number: number): Promise<Signer> {
  return signerFromSeed(new Uint8Array(32).fill(number));
}

export const job = "0199a0b1-c2d3-7000-8abc-0123456789ab";
export const run = "0199a0b1-c2d3-7001-8abc-0123456789ab";
export const commit = "9af2c1d0e4b58a7763f0c9d2e1b4a5968778695a";
export const narHash = "10551daed7fa467d0b58826e7eb9a0f2af7d693de319f2ef775fffcda244b9f6";

/** The result of a job that built one output, as its runner states it. */
export function jobResultInput(runner: string, changes: Partial<JobResultInput> = {}): JobResultInput {
  return {
    source: { repository: "rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5", commit },
    namespace: "acme",
    deployment: "web",
    job,
    run,
    epoch: 7,
    kind: "nix-build",
    result: "succeeded",
    exitCode: 0,
    reason: null,
    taskSha256: "a".repeat(64),
    configurationSha256: null,
    startedAt: "2026-11-20T10:00:00.000Z",
    finishedAt: "2026-11-20T10:01:30.000Z",
    runner: { did: runner, version: "0.1.0", isolation: "bwrap", system: "x86_64-linux", nix: "2.34.8" },
    log: { sha256: "b".repeat(64), bytes: 98_765, truncated: false },
    outputs: [{ name: "out", path: "/nix/store/vvph8axw8hmsl7afqa1fgk0j69wjfx26-r-a", narHash, narSize: 120 }],
    ...changes,
  };
}

/** The provenance of that output. */
export function provenanceInput(runner: string, changes: Partial<ProvenanceInput> = {}): ProvenanceInput {
  const { source, outputs, runner: _, ...rest } = jobResultInput(runner);
  return {
    attribute: "packages.x86_64-linux.default",
    outputs: outputs.map((output) => ({ ...output, drvPath: "/nix/store/3ixdp6255ll096zizlzdy4nmyxaiaqgs-r-a.drv" })),
    source: source === null ? null : { ...source, tree: "1".repeat(40), ref: "refs/heads/main" },
    namespace: rest.namespace,
    deployment: rest.deployment,
    job,
    run,
    epoch: rest.epoch,
    system: "x86_64-linux",
    sandbox: true,
    runner: { did: runner, version: "0.1.0", isolation: "bwrap", nix: "2.34.8" },
    startedAt: rest.startedAt,
    finishedAt: rest.finishedAt,
    log: rest.log,
    ...changes,
  };
}

/** A signed job result; the statement names its signer unless `changes` say otherwise. */
export async function signedJobResult(signer: Signer, changes: Partial<JobResultInput> = {}): Promise<Envelope> {
  return signDraft(draftJobResult(jobResultInput(didKeyOf(signer.publicKey), changes)), signer);
}

/** A signed provenance. */
export async function signedProvenance(signer: Signer, changes: Partial<ProvenanceInput> = {}): Promise<Envelope> {
  return signDraft(draftProvenance(provenanceInput(didKeyOf(signer.publicKey), changes)), signer);
}

async function signDraft(
  draft: ReturnType<typeof draftJobResult> | ReturnType<typeof draftProvenance>,
  signer: Signer,
): Promise<Envelope> {
  if (!draft.ok) throw new Error(draft.detail);
  return signEnvelope(STATEMENT_PAYLOAD_TYPE, draft.value.bytes, signer);
}

/** Six keys; the last two are never in a policy. */
export const dids = await Promise.all(
  [1, 2, 3, 4, 5, 6].map(async (seed) => didKeyOf((await signerNumber(seed)).publicKey)),
);

/** One statement of the runner with this number: what it found, and whatever else it says differently. */
export type Said = { key: number; nar?: string; changes?: Partial<Claims>; sha256?: string };

/** What a runner said, as it comes out of a verification. */
export function said({ key, nar = narHash, changes = {}, sha256 }: Said): SignedClaims {
  const signer = dids[key]!;
  const claims: Claims = {
    predicateType: "https://plumule.dev/job-result/v1",
    namespace: "acme",
    deployment: "web",
    job,
    run,
    epoch: 1,
    repository: null,
    commit,
    taskSha256: "a".repeat(64),
    configurationSha256: null,
    flakeLockSha256: null,
    result: "succeeded",
    system: "x86_64-linux",
    runner: signer,
    builderId: `${signer}#bwrap-v1`,
    untrusted: false,
    log: { sha256: "b".repeat(64), bytes: 10 },
    outputs: [{ name: "out", path: "/nix/store/x", narHash: nar, narSize: 120 }],
    startedAt: "2026-11-20T10:00:00.000Z",
    finishedAt: "2026-11-20T10:01:00.000Z",
    ...changes,
  };
  return { signer, sha256: sha256 ?? JSON.stringify(claims), claims };
}

/** Keys 0 to 3; 0 and 1 are of different operators, 2 is a second machine of operator 0, 3 of a third operator. */
export function policy(
  require: TrustRule["require"],
  changes: {
    onDivergence?: "block" | "warn";
    signers?: Partial<Record<number, Partial<TrustedSigner>>>;
    expires?: string;
  } = {},
): TrustPolicy {
  const operators = ["north", "south", "north", "east"];
  return {
    version: 1,
    expires: changes.expires ?? null,
    signers: operators.map((operator, index) => ({ key: dids[index]!, operator, ...changes.signers?.[index] })),
    rules: [{ ref: "refs/heads/*", require, onDivergence: changes.onDivergence ?? "block" }],
  };
}
