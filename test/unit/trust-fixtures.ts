import { draftJobResult, type JobResultInput } from "../../protocol/src/job-result.ts";
import { draftProvenance, type ProvenanceInput } from "../../protocol/src/provenance.ts";
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
