import type { SignedClaims } from "./claims.ts";
import { LIMITS } from "./limits.ts";
import type { Quorum } from "./submit.ts";
import { defaultPolicy, isFor, isPast, ruleFor, type TrustedSigner, type TrustPolicy, votesNeeded } from "./trust.ts";
import { decide, type Decision } from "./verdict.ts";
import type { VerdictView } from "./verdict-view.ts";

/**
 * Whom a namespace trusts at a time. `isDefault`: nobody has put a policy, so that each registered runner stands for itself. `revoked` are runners whose
 * registration was revoked, whatever the policy still says of their keys.
 */
export type TrustBasis = {
  at: string;
  policy: TrustPolicy;
  isDefault: boolean;
  revoked: readonly { key: string; at: string }[];
};

/**
 * The policy by which the votes of one job with a quorum count: the signers of the namespace's policy, and as the one rule what the job asks for, or
 * what the policy asks for its ref where that is more. Keys are told apart by operator where the job wants it, or where the ref's rule does.
 */
export function quorumPolicy({ policy, isDefault, revoked }: TrustBasis, ref: string, quorum: Quorum): TrustPolicy {
  // The default rule is what a single runner's word is measured by; a quorum asks for more.
  const rule = isDefault ? null : ruleFor(policy, ref);
  const required = rule === null ? 1 : votesNeeded(rule);
  const byOperator = quorum.distinct === "operator" || required > 1;
  const revokedAt = new Map(revoked.map(({ key, at }) => [key, at]));
  const signers = policy.signers.map((signer): TrustedSigner => ({
    ...signer,
    operator: byOperator ? signer.operator : signer.key,
    revokedAt: signer.revokedAt ?? revokedAt.get(signer.key) ?? null,
  }));
  return {
    ...policy,
    signers,
    rules: [
      {
        ref: "*",
        require: { k: Math.max(quorum.agree, required), compare: rule?.require.compare ?? "outputs" },
        onDivergence: rule?.onDivergence ?? "warn",
      },
    ],
  };
}

/** The signers whose vote could count now, of a policy that `quorumPolicy` made. */
export function eligibleSigners(policy: TrustPolicy, nowMs: number): TrustedSigner[] {
  return policy.signers.filter(
    ({ revokedAt, validAfter, validBefore, purposes }) =>
      isFor({ purposes }, "result") &&
      !isPast(revokedAt, nowMs) &&
      !isPast(validBefore, nowMs) &&
      (validAfter == null || isPast(validAfter, nowMs)),
  );
}

/** A decision in the form that is stored and shown: bounded, however many outputs there are. */
export function verdictView(decision: Decision): VerdictView {
  const { groups, ...rest } = decision;
  const differing = differingOutputs(groups);
  return {
    ...rest,
    votes: [...decision.votes],
    strangers: [...decision.strangers],
    groups: groups.map(({ operators, outputs }) => ({ operators: [...operators], outputCount: outputs.length })),
    differing: differing.slice(0, LIMITS.verdictOutputs),
    differingCount: differing.length,
  };
}

function differingOutputs(groups: Decision["groups"]): VerdictView["differing"] {
  const names = [...new Set(groups.flatMap(({ outputs }) => outputs.map(({ name }) => name)))].toSorted();
  const rows = names.map((name) => ({
    name,
    versions: groups.map(({ outputs }) => {
      const output = outputs.find((one) => one.name === name);
      return output === undefined ? null : { path: output.path, narHash: output.narHash, narSize: output.narSize };
    }),
  }));
  return rows.filter(({ versions }) => new Set(versions.map((version) => JSON.stringify(version))).size > 1);
}

/** Which outputs differ and how, in one sentence for people; empty when none do. */
export function describeDivergence({ differing, differingCount, groups }: VerdictView): string {
  const sentences = differing.slice(0, 3).map(({ name, versions }) => {
    const said = versions.map((version, group) => {
      const count = groups[group]?.operators.length ?? 0;
      const what = version === null ? "none" : `sha256:${version.narHash.slice(0, 12)}…`;
      return `${count} vote${count === 1 ? "" : "s"} for ${what}`;
    });
    return `output ${name} differs: ${said.join(", ")}`;
  });
  const rest = differingCount - sentences.length;
  return [...sentences, ...(rest > 0 ? [`${rest} more outputs differ`] : [])].join("; ");
}

/** What the statements about a job with a quorum come to. The broker, the command line and the page ask this same function. */
export function decideQuorum(
  basis: TrustBasis,
  ref: string,
  quorum: Quorum,
  statements: readonly SignedClaims[],
  nowMs: number,
): VerdictView {
  return verdictView(decide(quorumPolicy(basis, ref, quorum), ref, statements, nowMs));
}

/**
 * What verified statements come to for a reader who decides alone: by a policy, or where that is null by keys of their choice, each of which is one vote.
 * `quorum` is what the job asked for, null where it asked for none.
 */
export function decideForReader(
  statements: readonly SignedClaims[],
  asked: { keys: Iterable<string>; policy: TrustPolicy | null; quorum: Quorum | null; ref: string },
  nowMs: number,
): VerdictView {
  const { keys, policy, quorum, ref } = asked;
  if (policy !== null && quorum === null) return verdictView(decide(policy, ref, statements, nowMs));
  const basis: TrustBasis = {
    at: new Date(nowMs).toISOString(),
    policy: policy ?? defaultPolicy([...new Set(keys)]),
    isDefault: policy === null,
    revoked: [],
  };
  return decideQuorum(basis, ref, quorum ?? { replicas: 1, agree: 1 }, statements, nowMs);
}

/** True when enough votes agree and no other group has as many: what remains may still be blocked, by a rule that tolerates no divergence. */
export function isSettled({ needed, agreeing, groups }: VerdictView): boolean {
  return needed !== null && agreeing >= needed && (groups[1]?.operators.length ?? 0) < agreeing;
}
