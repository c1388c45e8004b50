import * as z from "zod";
import { runnerIdSchema, timeSchema } from "./ids.ts";
import { admitDidKey } from "./key-admission.ts";
import { accepted, refused, type Result } from "./result.ts";
import { statementPath, statementWord } from "./statements.ts";
import { TRUST_LIMITS } from "./trust-limits.ts";

/** What must agree between votes: `outputs` compares every output's path and NAR, `result` only that the job succeeded. */
export const COMPARISONS = ["outputs", "result"] as const;
export const comparisonSchema = z.enum(COMPARISONS);
export type Comparison = z.output<typeof comparisonSchema>;

export const PURPOSES = ["result", "webhook"] as const;
/** What a key's signature is believed about: results of jobs, or webhooks to any hook of the namespace. */
export const purposeSchema = z.enum(PURPOSES);

/**
 * A key whose votes count. `operator` says who answers for the machine: keys of one operator are not independent. `validAfter` and
 * `validBefore` bound the time at which a statement says it was finished; `revokedAt` ends every vote of the key from then on, old ones
 * too, because whoever stole a key can date its statements back. Without `purposes` a key is there for results alone.
 */
export const trustedSignerSchema = z.strictObject({
  key: runnerIdSchema,
  operator: statementWord.min(1),
  builderIds: z.array(statementPath).min(1).max(TRUST_LIMITS.policyBuilderIds).optional(),
  validAfter: timeSchema.nullish(),
  validBefore: timeSchema.nullish(),
  revokedAt: timeSchema.nullish(),
  purposes: z.array(purposeSchema).min(1).max(PURPOSES.length).optional(),
});
export type TrustedSigner = z.output<typeof trustedSignerSchema>;

/**
 * What a ref needs: `k` votes of different keys and operators, or `distinctOperators` where that is more. `ref` is a whole ref or ends in
 * `*`, which stands for any rest; the first rule that matches decides. On divergence `block` agrees to nothing, `warn` lets `k` agree.
 */
export const trustRuleSchema = z.strictObject({
  ref: z
    .string()
    .max(255)
    .regex(/^[^*]*\*?$/, "`*` only at the end")
    .min(1),
  require: z.strictObject({
    k: z.int().min(1).max(TRUST_LIMITS.policySigners),
    distinctOperators: z.int().min(1).max(TRUST_LIMITS.policySigners).optional(),
    compare: comparisonSchema.optional(),
  }),
  onDivergence: z.enum(["block", "warn"]),
});
export type TrustRule = z.output<typeof trustRuleSchema>;

/** Whom a namespace trusts. `acceptPolicy` checks what a schema cannot. */
export const trustPolicySchema = z
  .strictObject({
    version: z.int().min(1),
    expires: timeSchema.nullish(),
    signers: z.array(trustedSignerSchema).max(TRUST_LIMITS.policySigners),
    rules: z.array(trustRuleSchema).max(TRUST_LIMITS.policyRules),
  })
  .meta({ id: "TrustPolicy" });
export type TrustPolicy = z.output<typeof trustPolicySchema>;

export type PolicyRefusal = "wrong-version" | "already-expired" | "weak-key" | "duplicate-key" | "out-of-reach";

/**
 * Takes a policy in place of the current one (null: none yet). The version must be the next one, so that an old policy cannot come back;
 * keys are admitted once, here; a rule that no set of signers can meet is refused rather than blocking every commit. The detail of a
 * refusal starts with the JSON pointer of what is wrong.
 */
export function acceptPolicy(
  current: TrustPolicy | null,
  next: TrustPolicy,
  nowMs: number,
): Result<TrustPolicy, PolicyRefusal> {
  const due = (current?.version ?? 0) + 1;
  if (next.version !== due)
    return refused("wrong-version", `/version: ${next.version} given, the next version is ${due}`);
  if (isPast(next.expires, nowMs)) return refused("already-expired", `/expires: ${next.expires} has passed`);
  const seen = new Set<string>();
  for (const [index, { key }] of next.signers.entries()) {
    const admitted = admitDidKey(key);
    if (!admitted.ok) return refused("weak-key", `/signers/${index}/key: ${admitted.detail}`);
    if (seen.has(key))
      return refused(
        "duplicate-key",
        `/signers/${index}/key: ${key} is named twice; a key has one vote and one operator`,
      );
    seen.add(key);
  }
  const operatorCount = new Set(
    next.signers
      .filter((signer) => !isPast(signer.revokedAt, nowMs) && isFor(signer, "result"))
      .map((signer) => signer.operator),
  ).size;
  for (const [index, rule] of next.rules.entries()) {
    const needed = votesNeeded(rule);
    // A namespace without runners yet may already say that one will do.
    if (needed > Math.max(operatorCount, 1))
      return refused(
        "out-of-reach",
        `/rules/${index}/require: ${needed} independent votes needed, but only ${operatorCount} operator(s) have a key`,
      );
  }
  return accepted(next);
}

/** A policy that is put in its place has a later one. */
const DEFAULT_VERSION = 1;

/**
 * The policy of a namespace that was told nothing else: any one of its own runners is believed, for every ref. Nobody has said who answers for
 * which machine, so each key stands for itself.
 */
export function defaultPolicy(runners: readonly string[]): TrustPolicy {
  return {
    version: DEFAULT_VERSION,
    expires: null,
    signers: runners.map((key) => ({ key, operator: key })),
    rules: [{ ref: "*", require: { k: 1, compare: "result" }, onDivergence: "warn" }],
  };
}

/** True for a policy that nobody has put: it is the first version, in whose place that of a namespace comes. */
export function isDefaultPolicy({ version }: TrustPolicy): boolean {
  return version === DEFAULT_VERSION;
}

/** The rule for a ref (empty for a job without one): the first that matches, or null, which means that nothing is enough. */
export function ruleFor(policy: TrustPolicy, ref: string): TrustRule | null {
  return (
    policy.rules.find((rule) => (rule.ref.endsWith("*") ? ref.startsWith(rule.ref.slice(0, -1)) : rule.ref === ref)) ??
    null
  );
}

/** How many votes a rule needs. A vote is of one key and one operator, so that both numbers count the same votes. */
export function votesNeeded({ require }: TrustRule): number {
  return Math.max(require.k, require.distinctOperators ?? 0);
}

/** Whether a key is believed about something of this kind. */
export function isFor({ purposes }: Pick<TrustedSigner, "purposes">, purpose: z.output<typeof purposeSchema>): boolean {
  return (purposes ?? ["result"]).includes(purpose);
}

/** True when a time was given and has come. */
export function isPast(time: string | null | undefined, nowMs: number): boolean {
  return time != null && Date.parse(time) <= nowMs;
}
