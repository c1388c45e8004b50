import { admitDidKey, proveEquivocation, type Quorum } from "@plumule/protocol";
import { Command } from "commander";
import { findCommit } from "../checkout.ts";
import { act, type Context } from "../context.ts";
import { type Evidence, findBundle, findEvidence } from "../evidence.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure, misuse } from "../failure.ts";
import { collect, quorumOf } from "../flags.ts";
import { examineSummary, type Judged, judge, judgedLines, summaryLines, type ExaminedSummary } from "../judging.ts";
import { paint, type Terminal } from "../print.ts";
import { inLine } from "../terminal-text.ts";
import { type PinnedKey, readPinned, readPolicy } from "../trust-store.ts";
import { examine, type Examined, examinedLines, outcomeOf } from "../verification.ts";

type VerifyFlags = {
  trust?: string[];
  offline?: true;
  commit?: string;
  policy?: string;
  quorum?: Quorum;
  equivocation?: true;
};

/** `plumule verify`: checks signed results against keys that the reader chose. */
export function verifyCommand(): Command {
  return new Command("verify")
    .summary("check the signed result of a job, or of a file")
    .description(
      "Checks signatures, and that what is signed is what the broker shows: job, commit, task, log and outputs. Only keys that you pinned count: `plumule key trust`.",
    )
    .argument("[what]", "job, run, deployment or commit; or a file or URL with statements; by default the job of HEAD")
    .option("--trust <did>", "a key to believe this once; may be repeated", collect)
    .option("--commit <commit>", "the commit that it must be about, by any name that git knows here")
    .option(
      "--quorum <agree>",
      "how many of your keys must agree, such as 2; by default what the job asked for",
      quorumOf,
    )
    .option("--policy <file>", "a trust policy of your own, as JSON, instead of your pinned keys")
    .option("--equivocation", "only look for a key that contradicts itself, and prove it")
    .option("--offline", "ask nobody: only for files")
    .action(act(verify));
}

async function verify(context: Context, what: string | undefined, flags: VerifyFlags): Promise<ExitCode | Failure> {
  const { terminal, cwd, env, connect } = context;
  if (flags.equivocation === true) return findContradiction(context, what, flags.offline === true);
  const policy = flags.policy === undefined ? null : await readPolicy(flags.policy, cwd);
  if (isFailure(policy)) return policy;
  const named = (policy?.signers ?? []).map(({ key, operator }) => ({ key, name: operator, pinnedAt: "" }));
  const trusted = await trustedKeys(env, flags.trust ?? []);
  if (isFailure(trusted)) return trusted;
  const pinned = policy === null ? trusted : named;
  const commit = flags.commit === undefined ? undefined : await findCommit(cwd, flags.commit);
  if (commit === null) return misuse(`git knows no commit ${flags.commit}`, "Give the full commit id.");
  const evidence = await findEvidence(what, { cwd, connect, offline: flags.offline === true });
  if (isFailure(evidence)) return evidence;
  const examined: Examined[] = [];
  for (const envelope of evidence.envelopes) {
    const expected = evidence.expectedOf(envelope);
    examined.push(await examine(envelope, pinned, commit === undefined ? expected : { ...expected, commit }));
  }
  const summaries = await Promise.all(
    evidence.summaries.map((summary) => examineSummary(summary, trusted, evidence.envelopes)),
  );
  const quorum = flags.quorum ?? evidence.quorum;
  const judged =
    quorum === null && policy === null ? null : judge(examined, { pinned, policy, quorum, ref: evidence.ref });
  report(terminal, { examined, summaries, judged }, evidence);
  return isBelieved({ examined, summaries, judged }) ? EXIT.ok : EXIT.unverified;
}

/** Everything that was looked at. */
export type Seen = { examined: readonly Examined[]; summaries: readonly ExaminedSummary[]; judged: Judged | null };

/** True when what was looked at can be relied on: nothing is wrong, and either all is by keys of the reader, or enough of them agree. */
export function isBelieved({ examined, summaries, judged }: Seen): boolean {
  if (outcomeOf(examined) === "failed" || summaries.some(({ verification }) => !verification.ok)) return false;
  return judged === null ? outcomeOf(examined) === "verified" : judged.verdict.verdict === "agreed";
}

async function findContradiction(
  { terminal, cwd, connect }: Context,
  what: string | undefined,
  offline: boolean,
): Promise<ExitCode | Failure> {
  const bundle = await findBundle(what, { cwd, connect, offline });
  if (isFailure(bundle)) return bundle;
  const proof = await proveEquivocation(bundle);
  if (terminal.json)
    terminal.data(proof.ok ? { equivocation: proof.value } : { equivocation: null, detail: proof.detail });
  else if (proof.ok) {
    const { signer, about, first, second, envelopes } = proof.value;
    terminal.note(`${paint.bad("✗")} ${signer} contradicts itself about ${inLine(about)}`);
    terminal.note(`  ${inLine(first)}\n  ${inLine(second)}`);
    for (const envelope of envelopes) terminal.out(JSON.stringify(envelope));
  } else terminal.note(`${paint.good("✓")} ${proof.detail}`);
  return proof.ok ? EXIT.unverified : EXIT.ok;
}

async function trustedKeys(env: Context["env"], given: readonly string[]): Promise<PinnedKey[] | Failure> {
  const kept = await readPinned(env);
  if (isFailure(kept)) return kept;
  const pinnedAt = new Date().toISOString();
  for (const key of given) {
    const admitted = admitDidKey(key);
    if (!admitted.ok)
      return misuse(`${key} cannot be trusted: ${admitted.detail}`, "Give the did:key of an Ed25519 key.");
  }
  return [...given.map((key) => ({ key, name: "--trust", pinnedAt })), ...kept];
}

function report(terminal: Terminal, seen: Seen, { notes, next }: Evidence): void {
  const { examined, summaries, judged } = seen;
  if (terminal.json) {
    const statements = examined.map(({ signer, pinned, verification: { ok, checks, claims } }) => ({
      signer,
      pinned: pinned !== null,
      ok,
      checks,
      claims: claims ?? null,
    }));
    const broker = summaries.map(({ pinned, verification }) => ({ pinned, ...verification }));
    return terminal.data({ outcome: outcomeOf(examined), statements, notes, broker, verdict: judged?.verdict ?? null });
  }
  for (const line of examined.flatMap(examinedLines)) terminal.out(line);
  for (const line of summaries.flatMap(summaryLines)) terminal.out(line);
  if (judged !== null) for (const line of judgedLines(judged)) terminal.out(line);
  for (const note of notes) terminal.note(`${paint.care("!")} ${inLine(note)}`);
  terminal.note(lastWord(seen, next));
}

/** Where several had to agree, whether they did; else what holds of each statement. */
function lastWord(seen: Seen, next: string): string {
  const { examined, summaries, judged } = seen;
  if (summaries.some(({ verification }) => !verification.ok))
    return `${paint.bad("✗")} the broker's verdict is not what it seems. Do not rely on it`;
  if (judged === null || outcomeOf(examined) === "failed") return verdictLine(examined, next);
  const { verdict, detail } = judged.verdict;
  return isBelieved(seen)
    ? `${paint.good("✓")} agreed by ${judged.by}: ${detail}  ${paint.quiet(`→ ${next}`)}`
    : `${paint.bad("✗")} ${verdict} by ${judged.by}: ${inLine(detail)}. Do not rely on this result`;
}

/** The last word: what holds, and what to do where it does not. */
export function verdictLine(examined: readonly Examined[], next: string): string {
  const count = `${examined.length} ${examined.length === 1 ? "statement" : "statements"}`;
  switch (outcomeOf(examined)) {
    case "verified":
      return `${paint.good("✓")} ${count} verified under keys that you pinned  ${paint.quiet(`→ ${next}`)}`;
    case "unpinned": {
      const keys = [
        ...new Set(examined.flatMap(({ signer, pinned }) => (pinned === null && signer !== null ? [signer] : []))),
      ];
      const command = keys.map((key) => `plumule key trust ${inLine(key)}`).join("  ");
      return `${paint.care("!")} the signatures are valid, but you have not pinned the key: anyone can make one. If you know it, then ${paint.quiet(`→ ${command}`)}`;
    }
    case "failed": {
      const failed = examined.flatMap(({ verification }) =>
        verification.checks.filter(({ ok }) => !ok).map(({ name }) => name),
      );
      const which = failed.length === 0 ? "there is no statement" : `wrong: ${[...new Set(failed)].join(", ")}`;
      return `${paint.bad("✗")} not verified, ${which}. Do not rely on this result`;
    }
  }
}
