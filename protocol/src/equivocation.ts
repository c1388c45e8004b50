import type { Claims, SignedClaims } from "./claims.ts";
import { describeOutputs } from "./job-result.ts";
import type { Result } from "./result.ts";
import { accepted, refused } from "./result.ts";
import { verifyStatement } from "./verify.ts";

/** One thing of which a key has said two different contents: an output of a job's result, or of a derivation. */
export type Contradiction = { signer: string; about: string; first: string; second: string };

/**
 * What two statements of one key contradict each other about, or null. They have to be about the same inputs: the same commit, task, configuration, lock file
 * and system; or the same store path, which Nix derives from all inputs and which a key therefore may give one content only, whatever the job.
 */
export function contradiction(left: SignedClaims, right: SignedClaims): Contradiction | null {
  if (left.signer !== right.signer || left.sha256 === right.sha256) return null;
  const { signer } = left;
  for (const output of left.claims.outputs) {
    const other = right.claims.outputs.find(({ path }) => path === output.path);
    if (other !== undefined && other.narHash !== output.narHash)
      return { signer, about: output.path, first: `sha256:${output.narHash}`, second: `sha256:${other.narHash}` };
  }
  const sameKind = left.claims.predicateType === right.claims.predicateType;
  const bothSucceeded = left.claims.result === "succeeded" && right.claims.result === "succeeded";
  if (!sameKind || !bothSucceeded || left.claims.commit === null || inputsOf(left.claims) !== inputsOf(right.claims))
    return null;
  const [first, second] = [describeOutputs(left.claims.outputs), describeOutputs(right.claims.outputs)];
  return first === second ? null : { signer, about: `commit ${left.claims.commit}`, first, second };
}

function inputsOf(claims: Claims): string {
  const { commit, taskSha256, configurationSha256, flakeLockSha256, system } = claims;
  return JSON.stringify([commit, taskSha256, configurationSha256, flakeLockSha256, system]);
}

/** Two envelopes that prove a contradiction. Whoever holds them needs nobody else. */
export type EquivocationProof = Contradiction & { envelopes: readonly [unknown, unknown] };

/**
 * The first proof of equivocation among the envelopes of a bundle, each verified under the key that it names: the question is not whom the reader trusts, but
 * whether one key said both. Refuses with `none` when there is no such pair; envelopes that do not verify prove nothing and are passed over.
 */
export async function proveEquivocation(envelopes: readonly unknown[]): Promise<Result<EquivocationProof, "none">> {
  const read = await Promise.all(
    envelopes.map(async (envelope) => {
      const signer = namedSigner(envelope);
      const verification = signer === null ? null : await verifyStatement(envelope, { signers: [signer] });
      return verification?.ok === true ? { envelope, signed: verification } : null;
    }),
  );
  const verified = read.filter((one) => one !== null);
  for (const [index, left] of verified.entries())
    for (const right of verified.slice(index + 1)) {
      const found = contradiction(left.signed, right.signed);
      if (found !== null) return accepted({ ...found, envelopes: [left.envelope, right.envelope] });
    }
  return refused(
    "none",
    `no key contradicts itself in ${verified.length} verified statement(s) of ${envelopes.length}`,
  );
}

/** The key that an envelope says it is signed by; nothing relies on it before it was verified under that key. */
function namedSigner(envelope: unknown): string | null {
  const signatures = (envelope as { signatures?: unknown } | null)?.signatures;
  const keyid = Array.isArray(signatures) ? (signatures[0] as { keyid?: unknown } | undefined)?.keyid : null;
  return typeof keyid === "string" && keyid !== "" ? keyid : null;
}
