import * as z from "zod";
import { sha256Hex, utf8 } from "./bytes.ts";
import type { SignedClaims } from "./claims.ts";
import { didKeyOf, parseDidKey } from "./did-key.ts";
import { openEnvelope } from "./dsse.ts";
import { sha256Schema, timeSchema } from "./ids.ts";
import { admitKey } from "./key-admission.ts";
import type { Result } from "./result.ts";
import {
  draftStatement,
  STATEMENT_PAYLOAD_TYPE,
  STATEMENT_TYPE,
  type StatementDraft,
  type StatementRefusal,
  statementSchema,
  statementUri,
  statementWord,
} from "./statements.ts";
import type { TrustPolicy } from "./trust.ts";
import { TRUST_LIMITS } from "./trust-limits.ts";
import { VERDICTS, type VerdictView } from "./verdict-view.ts";

/** SLSA Verification Summary Attestation v1 (slsa.dev/spec, verification_summary). */
export const SUMMARY_PREDICATE_TYPE = "https://slsa.dev/verification_summary/v1";
/** The verified property that two or more independently operated platforms built the same (slsa.dev/spec, verified-properties). */
export const REPRODUCED = "SLSA_BUILD_REPRODUCED";

const attestationSchema = z.looseObject({
  uri: statementUri.optional(),
  digest: z.looseObject({ sha256: sha256Schema }),
});

/**
 * The broker's verdict about a job. `policy.digest` is the SHA-256 of the policy as `GET …/trust` answers it, each input's that of its envelope as a line of
 * `GET …/statements`, so that both can be checked with `sha256sum`. Fields that begin with `plumule_` are plumule's own. A persisted contract: fields may be added.
 */
export const summarySchema = statementSchema.extend({
  predicateType: z.literal(SUMMARY_PREDICATE_TYPE),
  predicate: z.looseObject({
    verifier: z.looseObject({ id: statementUri }),
    timeVerified: timeSchema,
    resourceUri: statementUri,
    policy: z.looseObject({ uri: statementUri, digest: z.looseObject({ sha256: sha256Schema }) }),
    inputAttestations: z.array(attestationSchema).max(TRUST_LIMITS.subjects),
    verificationResult: z.enum(["PASSED", "FAILED"]),
    verifiedLevels: z.array(statementWord).max(16),
    plumule_job: z.looseObject({ namespace: statementWord, deployment: statementWord, job: statementWord }),
    plumule_verdict: z.looseObject({
      verdict: z.enum(VERDICTS),
      agreeing: z.int(),
      needed: z.int().nullable(),
      policyVersion: z.int(),
    }),
  }),
});
export type Summary = z.output<typeof summarySchema>;

/** What a broker knows when it has decided. `votes` are the statements that it decided on, with their envelopes as they are handed out. */
export type SummaryInput = {
  verifier: string;
  at: string;
  namespace: string;
  deployment: string;
  job: string;
  source: { repository: string; commit: string; ref?: string | undefined } | null;
  taskSha256: string;
  policy: TrustPolicy;
  /** Nobody has put the policy, so nobody has said that its operators are independent. */
  isDefault: boolean;
  verdict: VerdictView;
  votes: readonly { envelope: unknown; signed: SignedClaims }[];
};

/** The verdict as a statement with the bytes to sign: about the commit, or the task where there is none, and about the outputs that were agreed on. */
export async function draftSummary(input: SummaryInput): Promise<Result<StatementDraft<Summary>, StatementRefusal>> {
  const { namespace, deployment, job, source, policy, verdict } = input;
  const passed = verdict.verdict === "agreed";
  const about =
    source === null
      ? { name: "task", digest: { sha256: input.taskSha256 } }
      : { name: source.repository, digest: { gitCommit: source.commit } };
  const inputs = await Promise.all(
    input.votes.map(async ({ envelope }) => ({
      uri: `urn:plumule:${namespace}/jobs/${job}/statements`,
      digest: { sha256: await envelopeDigest(envelope) },
    })),
  );
  const subject = [about, ...(passed ? agreedOutputs(input) : [])].slice(0, TRUST_LIMITS.subjects);
  const statement: z.input<typeof summarySchema> = {
    _type: STATEMENT_TYPE,
    subject,
    predicateType: SUMMARY_PREDICATE_TYPE,
    predicate: {
      verifier: { id: input.verifier },
      timeVerified: input.at,
      resourceUri:
        source === null
          ? `urn:plumule:${namespace}/deployments/${deployment}`
          : `git+${source.repository}@${source.ref ?? source.commit}`,
      policy: {
        uri: `urn:plumule:${namespace}/trust#${policy.version}`,
        digest: { sha256: await policyDigest(policy) },
      },
      inputAttestations: inputs,
      verificationResult: passed ? "PASSED" : "FAILED",
      verifiedLevels: passed ? levelsOf(input) : [],
      plumule_job: { namespace, deployment, job },
      plumule_verdict: {
        verdict: verdict.verdict,
        agreeing: verdict.agreeing,
        needed: verdict.needed,
        policyVersion: verdict.policyVersion,
      },
    },
  };
  const drafted = draftStatement(summarySchema, statement);
  // The outputs also stand in the statements that it names; without them a summary of hundreds still fits.
  return drafted.ok || drafted.code !== "statement-too-large"
    ? drafted
    : draftStatement(summarySchema, { ...statement, subject: [about] });
}

/** The SHA-256 (hex) of a policy as it is handed out. */
export function policyDigest(policy: TrustPolicy): Promise<string> {
  return sha256Hex(utf8(JSON.stringify(policy)));
}

/** The SHA-256 (hex) of an envelope as a line of a bundle, without the end of the line. */
export function envelopeDigest(envelope: unknown): Promise<string> {
  return sha256Hex(utf8(JSON.stringify(envelope)));
}

/** The votes of the group that agreed: those that count and say what the first group says. */
function agreeingVotes({ verdict, votes }: SummaryInput): SummaryInput["votes"] {
  const agreeing = new Set(
    verdict.votes.flatMap(({ sha256, standing, group }) => (standing === "counted" && group === 0 ? [sha256] : [])),
  );
  return votes.filter(({ signed }) => agreeing.has(signed.sha256));
}

function agreedOutputs(input: SummaryInput): z.input<typeof summarySchema>["subject"] {
  if (input.verdict.compare !== "outputs") return [];
  const outputs = agreeingVotes(input)[0]?.signed.claims.outputs ?? [];
  return outputs.map(({ name, path, narHash }) => ({ name, uri: `nix:${path}`, digest: { sha256: narHash } }));
}

/** Reproduced only where people have said who operates what: two keys of one machine's owner are not two platforms. */
function levelsOf(input: SummaryInput): string[] {
  const operators = new Map(input.policy.signers.map(({ key, operator }) => [key, operator]));
  const independent = new Set(agreeingVotes(input).flatMap(({ signed }) => operators.get(signed.signer) ?? []));
  const reproduced = !input.isDefault && input.verdict.compare === "outputs" && independent.size >= 2;
  const { agreeing, needed } = input.verdict;
  return [
    ...(reproduced ? [REPRODUCED] : []),
    `PLUMULE_AGREED_${agreeing}_OF_${Math.max(needed ?? 1, input.votes.length)}`,
  ];
}

/** What is looked at in a summary, in this order. */
export const SUMMARY_CHECKS = ["signature", "statement", "verifier", "inputs", "policy"] as const;
export type SummaryCheck = { name: (typeof SUMMARY_CHECKS)[number]; ok: boolean; detail: string };

/** A summary that was looked at. `ok`: everything that could be checked holds. */
export type SummaryVerification = {
  ok: boolean;
  checks: SummaryCheck[];
  summary: Summary | null;
  signer: string | null;
};

/**
 * Verifies a broker's verdict offline, under keys of brokers that the reader chose (did:key): who signed it, that it speaks in its own name, that the
 * statements which it decided on are among those at hand, and, where the reader has the policy, that it decided by that one.
 */
export async function verifySummary(
  envelope: unknown,
  { brokers, envelopes, policy }: { brokers: readonly string[]; envelopes: readonly unknown[]; policy?: TrustPolicy },
): Promise<SummaryVerification> {
  const keys = brokers.flatMap((broker) => {
    const parsed = parseDidKey(broker);
    const admitted = parsed.ok ? admitKey(parsed.value) : parsed;
    return admitted.ok ? [admitted.value] : [];
  });
  const opened = await openEnvelope(envelope, { keys, payloadTypes: [STATEMENT_PAYLOAD_TYPE] });
  if (!opened.ok) return stopped([{ name: "signature", ok: false, detail: opened.detail }]);
  const signer = didKeyOf(opened.value.signers[0] ?? new Uint8Array(32));
  const signature: SummaryCheck = { name: "signature", ok: true, detail: `signed by ${signer}` };
  const parsed = summarySchema.safeParse(opened.value.value);
  if (!parsed.success) return stopped([signature, { name: "statement", ok: false, detail: "no verification summary" }]);
  const { predicate } = parsed.data;
  const known = new Set(await Promise.all(envelopes.map((one) => envelopeDigest(one))));
  const absent = predicate.inputAttestations.filter(({ digest }) => !known.has(digest.sha256)).length;
  const count = predicate.inputAttestations.length;
  const checks: SummaryCheck[] = [
    signature,
    {
      name: "statement",
      ok: true,
      detail: `${predicate.verificationResult} ${predicate.verifiedLevels.join(" ")}`.trim(),
    },
    { name: "verifier", ok: predicate.verifier.id === signer, detail: `speaks as ${predicate.verifier.id}` },
    {
      name: "inputs",
      ok: absent === 0,
      detail: absent === 0 ? `all ${count} statements are here` : `${absent} of ${count} statements are not here`,
    },
  ];
  if (policy !== undefined) {
    const digest = await policyDigest(policy);
    const ok = digest === predicate.policy.digest.sha256;
    checks.push({
      name: "policy",
      ok,
      detail: ok
        ? `version ${policy.version} of the policy`
        : `decided by another policy than version ${policy.version}`,
    });
  }
  return { ok: checks.every((check) => check.ok), checks, summary: parsed.data, signer };
}

function stopped(checks: SummaryCheck[]): SummaryVerification {
  return { ok: false, checks, summary: null, signer: null };
}

/** Whether an envelope says that it holds a summary, before anything is verified: it is looked at differently from a runner's statement. */
export function looksLikeSummary(envelope: unknown): boolean {
  const payload = (envelope as { payload?: unknown } | null)?.payload;
  if (typeof payload !== "string") return false;
  try {
    return atob(payload).includes(SUMMARY_PREDICATE_TYPE);
  } catch {
    return false;
  }
}
