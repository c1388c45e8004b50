import {
  decideForReader,
  isSettled,
  type Quorum,
  type SignedClaims,
  type SummaryVerification,
  type TrustPolicy,
  type VerdictView,
  verifySummary,
} from "@plumule/protocol";
import { paint, shortKey } from "./print.ts";
import { inLine } from "./terminal-text.ts";
import type { PinnedKey } from "./trust-store.ts";
import type { Examined } from "./verification.ts";

/** A verdict that the reader came to alone, and by whose rules. */
export type Judged = { verdict: VerdictView; by: string };

/**
 * What the verified statements come to for this reader: by a policy of theirs, or by their pinned keys, each of which is one vote. The broker decides with
 * the same function.
 */
export function judge(
  examined: readonly Examined[],
  asked: { pinned: readonly PinnedKey[]; policy: TrustPolicy | null; quorum: Quorum | null; ref: string },
): Judged {
  const statements = examined.flatMap(({ verification }): SignedClaims[] => (verification.ok ? [verification] : []));
  const keys = asked.pinned.map(({ key }) => key);
  const by = asked.policy === null ? "keys that you pinned" : "your policy";
  return { verdict: decideForReader(statements, { ...asked, keys }, Date.now()), by };
}

/** A broker's verdict, looked at. `pinned`: the reader has pinned the key that signed it. */
export type ExaminedSummary = { signer: string | null; pinned: boolean; verification: SummaryVerification };

/** Verifies a broker's verdict under the key that it names, and says whether the reader pinned that key. */
export async function examineSummary(
  summary: unknown,
  pinned: readonly PinnedKey[],
  envelopes: readonly unknown[],
): Promise<ExaminedSummary> {
  const signatures = (summary as { signatures?: { keyid?: unknown }[] } | null)?.signatures ?? [];
  const signer = signatures.map(({ keyid }) => keyid).find((keyid) => typeof keyid === "string") ?? null;
  const verification = await verifySummary(summary, { brokers: signer === null ? [] : [signer], envelopes });
  return { signer, pinned: pinned.some(({ key }) => key === signer), verification };
}

/** A broker's verdict as lines. Nothing is green under a key that is not pinned: it is then no more than what the broker says. */
export function summaryLines({ signer, pinned, verification }: ExaminedSummary): string[] {
  const { checks, summary } = verification;
  const predicate = summary?.predicate;
  const said =
    predicate === undefined
      ? paint.bad("a verdict that cannot be read")
      : `the broker's verdict: ${predicate.plumule_verdict.verdict}`;
  const by = `${signer ?? "nobody"}${pinned ? "" : " (not pinned)"}`;
  return [
    `${said}  ${paint.quiet(`by ${inLine(by)}`)}`,
    ...checks.map(({ name, ok, detail }) => {
      const mark = ok ? (pinned ? paint.good("✓") : paint.quiet("•")) : paint.bad("✗");
      return `  ${mark} ${name.padEnd(9)}  ${inLine(detail)}`;
    }),
  ];
}

/** The reader's own verdict as lines. */
export function judgedLines({ verdict, by }: Judged): string[] {
  return [`${paint.strong("votes")}  ${paint.quiet(`by ${by}`)}`, ...matrixLines(verdict).map((line) => `  ${line}`)];
}

/** Groups are shown as letters, the largest first. */
const groupName = (group: number): string => String.fromCharCode(65 + group);

/** The matrix of a verdict: each vote with what it is worth and which of the groups it is of, then the outputs that differ. */
export function matrixLines(verdict: VerdictView): string[] {
  const { votes, groups, strangers, differing, differingCount } = verdict;
  const agreed = isSettled(verdict);
  const rows = votes.map(({ signer, operator, standing, group, result }) => {
    const counts = standing === "counted";
    const mark = !counts ? paint.quiet("·") : group === 0 && agreed ? paint.good("●") : paint.care("●");
    const who = operator === signer ? shortKey(signer) : `${shortKey(signer)}  ${inLine(operator)}`;
    const worth = standing === "not-succeeded" ? result : standing;
    return `${mark} ${group === null ? " " : groupName(group)}  ${who}  ${counts ? "" : paint.care(worth)}`.trimEnd();
  });
  const outside = strangers.map(
    ({ signer }) => `${paint.quiet("·")}    ${shortKey(signer)}  ${paint.quiet("not trusted, counts nothing")}`,
  );
  const outputs = differing.flatMap(({ name, versions }) => [
    paint.bad(`${inLine(name)} differs`),
    ...versions.map((version, group) => {
      const count = groups[group]?.operators.length ?? 0;
      const what = version === null ? "no such output" : `sha256:${version.narHash}`;
      return `  ${groupName(group)}  ${what}  ${paint.quiet(`${count} ${count === 1 ? "vote" : "votes"}`)}`;
    }),
  ]);
  const more = differingCount > differing.length ? [`${differingCount - differing.length} more outputs differ`] : [];
  return [...rows, ...outside, ...outputs, ...more];
}
