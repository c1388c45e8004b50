import type { Claims, SignedClaims } from "./claims.ts";
import { describeOutputs, JOB_RESULT_PREDICATE_TYPE, type OutputContent } from "./job-result.ts";
import {
  type Comparison,
  isFor,
  isPast,
  ruleFor,
  type TrustedSigner,
  type TrustPolicy,
  type TrustRule,
  votesNeeded,
} from "./trust.ts";
import type { Standing, Verdict } from "./verdict-view.ts";

/** A row of the matrix. `group` is the place of its content in `groups`, where it was compared. */
export type Vote = {
  signer: string;
  operator: string;
  sha256: string;
  result: Claims["result"];
  finishedAt: string;
  standing: Standing;
  group: number | null;
};

/** Votes that say the same. `operators` is what counts: one vote per key, and one per operator. */
export type VoteGroup = { operators: readonly string[]; outputs: readonly OutputContent[] };

/** A verdict with its grounds. `agreeing` votes of `needed`; `strangers` are statements by keys that the policy does not name: they count nothing. */
export type Decision = {
  verdict: Verdict;
  detail: string;
  policyVersion: number;
  compare: Comparison | null;
  needed: number | null;
  agreeing: number;
  diverging: boolean;
  groups: readonly VoteGroup[];
  votes: readonly Vote[];
  strangers: readonly { signer: string; sha256: string }[];
};

type Ballot = { signed: SignedClaims; entry: TrustedSigner; inputs: string; content: string; standing: Standing };
type Tally = {
  ballots: readonly Ballot[];
  contents: readonly { content: string; operators: readonly string[]; outputs: readonly OutputContent[] }[];
  diverging: boolean;
};

/**
 * Decides whether the statements about one job or commit are enough for a ref (empty where there is none). Pure, and the same for every
 * order of the statements. It only ever asks for agreement and never for the absence of a failure, so that nobody gains by withholding
 * a statement, and one bad runner cannot censor. All statements must have been verified to be about the same subject.
 */
export function decide(policy: TrustPolicy, ref: string, statements: readonly SignedClaims[], nowMs: number): Decision {
  const results = distinct(statements).filter(({ claims }) => claims.predicateType === JOB_RESULT_PREDICATE_TYPE);
  // The first entry of a key counts, so that a key named twice still has one vote and one operator.
  const entries = new Map(policy.signers.toReversed().map((entry) => [entry.key, entry]));
  const trusted = results.flatMap((signed) => {
    const entry = entries.get(signed.signer);
    return entry === undefined ? [] : [{ signed, entry }];
  });
  const rule = ruleFor(policy, ref);
  const compare = rule === null ? null : (rule.require.compare ?? "outputs");
  const tallyAt = (revokedBefore: number): Tally =>
    tally(
      trusted.map(({ signed, entry }) => toBallot(signed, entry, compare, revokedBefore)),
      compare,
    );
  const counted = tallyAt(nowMs);
  const judged = isPast(policy.expires, nowMs)
    ? { verdict: "expired" as const, detail: `the policy expired at ${policy.expires}` }
    : rule === null
      ? {
          verdict: "insufficient" as const,
          detail: `no rule of the policy matches ${ref === "" ? "a job without a ref" : ref}`,
        }
      : judge(rule, counted, trusted.length > 0, () => tallyAt(Number.NEGATIVE_INFINITY));
  return {
    ...judged,
    policyVersion: policy.version,
    compare,
    needed: rule === null ? null : votesNeeded(rule),
    agreeing: agreeing(counted),
    diverging: counted.diverging,
    groups: counted.contents.map(({ operators, outputs }) => ({ operators, outputs })),
    votes: counted.ballots.map((ballot) => toVote(ballot, counted)),
    strangers: results.filter(({ signer }) => !entries.has(signer)).map(({ signer, sha256 }) => ({ signer, sha256 })),
  };
}

/** Each statement once, in an order that does not depend on how they came. The payload's digest is its identity: envelopes can be re-encoded. */
function distinct(statements: readonly SignedClaims[]): SignedClaims[] {
  const byIdentity = new Map(statements.map((signed) => [`${signed.signer} ${signed.sha256}`, signed]));
  return [...byIdentity].toSorted(([left], [right]) => (left < right ? -1 : 1)).map(([, signed]) => signed);
}

function toBallot(
  signed: SignedClaims,
  entry: TrustedSigner,
  compare: Comparison | null,
  revokedBefore: number,
): Ballot {
  const { claims } = signed;
  const inputs = JSON.stringify([
    claims.commit,
    claims.taskSha256,
    claims.configurationSha256,
    claims.flakeLockSha256,
    claims.system,
  ]);
  return {
    signed,
    entry,
    inputs,
    content: compare === "outputs" ? describeOutputs(claims.outputs) : "",
    standing: firstStanding(claims, entry, revokedBefore),
  };
}

function firstStanding(claims: Claims, entry: TrustedSigner, revokedBefore: number): Standing {
  if (isPast(entry.revokedAt, revokedBefore)) return "revoked";
  if (!isFor(entry, "result")) return "wrong-purpose";
  const finishedAt = Date.parse(claims.finishedAt);
  if ((entry.validAfter != null && finishedAt < Date.parse(entry.validAfter)) || isPast(entry.validBefore, finishedAt))
    return "outside-validity";
  // What a runner did for a stranger counts only where the policy names that builder.
  if (entry.builderIds === undefined ? claims.untrusted : !entry.builderIds.includes(claims.builderId ?? ""))
    return "wrong-builder";
  return claims.result === "succeeded" ? "counted" : "not-succeeded";
}

/** Compares the ballots that may count: a key against itself, then an operator against itself, then all with the same inputs. */
function tally(drawn: readonly Ballot[], compare: Comparison | null): Tally {
  const honest = demoteContradictions(drawn, ({ signed }) => signed.signer, "equivocated");
  const undivided = demoteContradictions(honest, ({ entry }) => entry.operator, "operator-divided");
  const compared = (ballot: Ballot): boolean => ballot.standing === "counted" || ballot.standing === "operator-divided";
  const inputs = mostVoted(undivided.filter(compared));
  const ballots = undivided.map((ballot): Ballot =>
    compared(ballot) && ballot.inputs !== inputs ? { ...ballot, standing: "not-comparable" } : ballot,
  );
  const groups = Map.groupBy(ballots.filter(compared), ({ content }) => content);
  const contents = [...groups].map(([content, members]) => ({
    content,
    operators: [
      ...new Set(members.filter(({ standing }) => standing === "counted").map(({ entry }) => entry.operator)),
    ].toSorted(),
    outputs: compare === "outputs" ? (members[0]?.signed.claims.outputs ?? []) : [],
  }));
  contents.sort(
    (left, right) => right.operators.length - left.operators.length || (left.content < right.content ? -1 : 1),
  );
  return { ballots, contents, diverging: contents.length > 1 };
}

/** Whoever says two things about the same inputs is counted for neither. */
function demoteContradictions(
  ballots: readonly Ballot[],
  voterOf: (ballot: Ballot) => string,
  standing: Standing,
): Ballot[] {
  const keyOf = (ballot: Ballot): string => JSON.stringify([voterOf(ballot), ballot.inputs]);
  const contents = new Map<string, Set<string>>();
  for (const ballot of ballots) {
    if (ballot.standing !== "counted") continue;
    const key = keyOf(ballot);
    contents.set(key, (contents.get(key) ?? new Set()).add(ballot.content));
  }
  return ballots.map((ballot) =>
    ballot.standing === "counted" && (contents.get(keyOf(ballot))?.size ?? 0) > 1 ? { ...ballot, standing } : ballot,
  );
}

/** The inputs that most operators speak about; of equals the first in text order. */
function mostVoted(ballots: readonly Ballot[]): string | null {
  const operatorCount = (members: readonly Ballot[]): number =>
    new Set(members.map(({ entry }) => entry.operator)).size;
  const ranked = [...Map.groupBy(ballots, ({ inputs }) => inputs)].toSorted(
    ([left, leftMembers], [right, rightMembers]) =>
      operatorCount(rightMembers) - operatorCount(leftMembers) || (left < right ? -1 : 1),
  );
  return ranked[0]?.[0] ?? null;
}

function agreeing({ contents }: Tally): number {
  return contents[0]?.operators.length ?? 0;
}

function judge(
  rule: TrustRule,
  counted: Tally,
  spoken: boolean,
  withRevoked: () => Tally,
): { verdict: Verdict; detail: string } {
  const needed = votesNeeded(rule);
  const count = agreeing(counted);
  const tied = counted.contents[1]?.operators.length === count;
  if (counted.diverging && (rule.onDivergence === "block" || tied || count < needed)) {
    return {
      verdict: "diverged",
      detail: `trusted runners disagree about the same inputs: ${counted.contents.length} different contents`,
    };
  }
  if (count >= needed)
    return {
      verdict: "agreed",
      detail: `${count} independent vote(s) agree, ${needed} needed${counted.diverging ? "; others differ" : ""}`,
    };
  if (!spoken)
    return { verdict: "pending", detail: `no trusted runner has signed a result yet, ${needed} vote(s) needed` };
  if (agreeing(withRevoked()) >= needed)
    return { verdict: "revoked", detail: `only ${count} of ${needed} vote(s) are left, because a key was revoked` };
  return { verdict: "insufficient", detail: `${count} of ${needed} independent vote(s) agree` };
}

function toVote({ signed, entry, content, standing }: Ballot, { contents }: Tally): Vote {
  const compared = standing === "counted" || standing === "operator-divided";
  return {
    signer: signed.signer,
    operator: entry.operator,
    sha256: signed.sha256,
    result: signed.claims.result,
    finishedAt: signed.claims.finishedAt,
    standing,
    group: compared ? contents.findIndex((group) => group.content === content) : null,
  };
}
