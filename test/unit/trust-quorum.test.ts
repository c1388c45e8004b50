import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { withPolicySigners } from "#durable-objects/namespace/core/hooks.ts";
import type { SignedClaims } from "../../protocol/src/claims.ts";
import { didKeyOf } from "../../protocol/src/did-key.ts";
import { type Envelope, signEnvelope } from "../../protocol/src/dsse.ts";
import { contradiction, proveEquivocation } from "../../protocol/src/equivocation.ts";
import {
  decideQuorum,
  describeDivergence,
  eligibleSigners,
  isSettled,
  quorumPolicy,
  type TrustBasis,
} from "../../protocol/src/quorum.ts";
import { STATEMENT_PAYLOAD_TYPE } from "../../protocol/src/statements.ts";
import { acceptPolicy, defaultPolicy, type TrustPolicy } from "../../protocol/src/trust.ts";
import {
  draftSummary,
  looksLikeSummary,
  policyDigest,
  type SummaryInput,
  verifySummary,
} from "../../protocol/src/verdict-summary.ts";
import { verifyStatement } from "../../protocol/src/verify.ts";
import {
  commit,
  dids,
  job,
  narHash,
  policy,
  said,
  signedJobResult,
  signedProvenance,
  signerNumber,
} from "./trust-fixtures.ts";

const NOW = Date.parse("2026-11-21T00:00:00Z");
const MAIN = "refs/heads/main";
const TWO = { replicas: 3, agree: 2 };
const OTHER = "f".repeat(64);

const broker = await signerNumber(9);
const brokers = [didKeyOf(broker.publicKey)];
const liar = await signerNumber(1);
const envelopes = await Promise.all([1, 2].map(async (seed) => signedJobResult(await signerNumber(seed))));

/** Keys 0 and 2 are of one operator, 1 and 3 of two others. */
const basisOf = (changes: Partial<TrustBasis> = {}): TrustBasis => ({
  at: new Date(NOW).toISOString(),
  policy: { ...policy({ k: 1 }, { onDivergence: "warn" }), version: 2 },
  isDefault: false,
  revoked: [],
  ...changes,
});

describe("the policy of a quorum", () => {
  it("counts keys, or operators where the job or the rule of its ref asks for independence", () => {
    const votes = [said({ key: 0 }), said({ key: 2 })];
    expect(decideQuorum(basisOf(), MAIN, TWO, votes, NOW)).toMatchObject({ verdict: "agreed", agreeing: 2 });
    expect(decideQuorum(basisOf(), MAIN, { ...TWO, distinct: "operator" }, votes, NOW)).toMatchObject({ agreeing: 1 });
    const strict = basisOf({ policy: policy({ k: 2 }) });
    expect(decideQuorum(strict, MAIN, TWO, votes, NOW)).toMatchObject({ agreeing: 1, needed: 2 });
  });

  it("never asks for less than the rule of the ref, nor for less than the job", () => {
    const needed = (k: number, agree: number): number | undefined =>
      quorumPolicy(basisOf({ policy: policy({ k }) }), MAIN, { replicas: 7, agree }).rules[0]?.require.k;
    expect([needed(3, 2), needed(1, 2)]).toEqual([3, 2]);
  });

  it("compares outputs where nobody has put a policy, whatever the default rule is content with", () => {
    const basis = basisOf({ policy: defaultPolicy(dids), isDefault: true });
    const votes = [said({ key: 0 }), said({ key: 1, nar: OTHER })];
    expect(decideQuorum(basis, MAIN, TWO, votes, NOW)).toMatchObject({ verdict: "diverged", compare: "outputs" });
  });

  it("counts no key whose registration was revoked, is not valid now, or is there for something else", () => {
    const revoked = basisOf({ revoked: [{ key: dids[1]!, at: "2026-11-20T00:00:00Z" }] });
    expect(decideQuorum(revoked, MAIN, TWO, [said({ key: 0 }), said({ key: 1 })], NOW)).toMatchObject({
      verdict: "revoked",
      agreeing: 1,
    });
    const signers = policy(
      { k: 1 },
      {
        signers: {
          1: { purposes: ["webhook"] },
          2: { validAfter: "2027-01-01T00:00:00Z" },
          3: { validBefore: "2026-01-01T00:00:00Z" },
        },
      },
    );
    expect(eligibleSigners(signers, NOW).map(({ key }) => key)).toEqual([dids[0]]);
  });

  it("comes to the same in every order of the votes, and nothing changes by a stranger's", () => {
    const votes: SignedClaims[] = [said({ key: 0 }), said({ key: 1, nar: OTHER }), said({ key: 3 }), said({ key: 2 })];
    const verdict = decideQuorum(basisOf(), MAIN, TWO, votes, NOW);
    fc.assert(
      fc.property(fc.shuffledSubarray(votes, { minLength: votes.length }), (shuffled) => {
        expect(decideQuorum(basisOf(), MAIN, TWO, shuffled, NOW)).toEqual(verdict);
      }),
      { numRuns: 24 },
    );
    const { strangers: _, ...withStranger } = decideQuorum(
      basisOf(),
      MAIN,
      TWO,
      [...votes, said({ key: 5, nar: OTHER })],
      NOW,
    );
    const { strangers: __, ...without } = verdict;
    expect(withStranger).toEqual(without);
  });

  it("names the outputs that differ, and how many say what", () => {
    const votes = [said({ key: 0 }), said({ key: 1, nar: OTHER }), said({ key: 3 })];
    const verdict = decideQuorum(basisOf(), MAIN, TWO, votes, NOW);
    expect(isSettled(verdict)).toBe(true);
    expect(describeDivergence(verdict)).toBe(
      `output out differs: 2 votes for sha256:${narHash.slice(0, 12)}…, 1 vote for sha256:${OTHER.slice(0, 12)}…`,
    );
  });
});

describe("a purpose", () => {
  it("keeps a key of a webhook's sender from voting, and a runner's key from sending webhooks", () => {
    const mixed = policy(
      { k: 1 },
      { signers: { 0: { purposes: ["webhook"] }, 1: { purposes: ["result", "webhook"] } } },
    );
    const standings = decideQuorum(basisOf({ policy: mixed }), MAIN, TWO, [said({ key: 0 }), said({ key: 1 })], NOW);
    expect(new Set(standings.votes.map(({ standing }) => standing))).toEqual(new Set(["counted", "wrong-purpose"]));
    const [hook] = withPolicySigners([{ id: "garden", secrets: [] }], mixed);
    expect(hook?.signers?.map(({ key }) => key)).toEqual([dids[0], dids[1]]);
    expect(withPolicySigners([{ id: "garden", secrets: [] }], policy({ k: 1 }))).toEqual([
      { id: "garden", secrets: [] },
    ]);
  });

  it("that is no result's brings no rule within reach", () => {
    const operators: Record<number, { purposes: ["webhook"] }> = {
      1: { purposes: ["webhook"] },
      3: { purposes: ["webhook"] },
    };
    expect(acceptPolicy(null, policy({ k: 2 }, { signers: operators }), NOW)).toMatchObject({
      ok: false,
      code: "out-of-reach",
    });
  });
});

describe("a summary of the broker", () => {
  const given: TrustPolicy = { ...policy({ k: 2 }), version: 2 };

  async function summaryOf(changes: Partial<SummaryInput> = {}): Promise<Envelope> {
    const votes = await Promise.all(
      envelopes.map(async (envelope, index) => {
        const signed = await verifyStatement(envelope, { signers: [dids[index]!] });
        if (!signed.ok) throw new Error("not verified");
        return { envelope, signed };
      }),
    );
    const claims = votes.map(({ signed }) => signed);
    const input: SummaryInput = {
      verifier: brokers[0]!,
      at: new Date(NOW).toISOString(),
      namespace: "acme",
      deployment: "web",
      job,
      source: { repository: "rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5", commit, ref: MAIN },
      taskSha256: "a".repeat(64),
      policy: given,
      isDefault: false,
      verdict: decideQuorum(basisOf({ policy: given }), MAIN, TWO, claims, NOW),
      votes,
      ...changes,
    };
    const drafted = await draftSummary(input);
    if (!drafted.ok) throw new Error(drafted.detail);
    return signEnvelope(STATEMENT_PAYLOAD_TYPE, drafted.value.bytes, broker);
  }

  it("says what was decided, of what, by which policy and from which statements", async () => {
    const envelope = await summaryOf();
    const { ok, summary, checks } = await verifySummary(envelope, { brokers, envelopes, policy: given });
    expect(checks.filter((check) => !check.ok)).toEqual([]);
    expect(ok).toBe(true);
    expect(summary).toMatchObject({
      subject: [{ digest: { gitCommit: commit } }, { name: "out", digest: { sha256: narHash } }],
      predicate: {
        verificationResult: "PASSED",
        resourceUri: `git+rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5@${MAIN}`,
        verifiedLevels: ["SLSA_BUILD_REPRODUCED", "PLUMULE_AGREED_2_OF_2"],
        policy: { digest: { sha256: await policyDigest(given) } },
      },
    });
    expect(looksLikeSummary(envelope)).toBe(true);
    expect(looksLikeSummary(envelopes[0])).toBe(false);
  });

  it("claims reproduction only where people have said that the operators are independent", async () => {
    const byDefault = await summaryOf({ isDefault: true });
    const together = given.signers.map((signer) => ({ ...signer, operator: "north" }));
    const oneOperator = await summaryOf({ policy: { ...given, signers: together } });
    for (const envelope of [byDefault, oneOperator]) {
      const { summary } = await verifySummary(envelope, { brokers, envelopes });
      expect(summary?.predicate.verifiedLevels).toEqual(["PLUMULE_AGREED_2_OF_2"]);
    }
  });

  it("is refused under another key, in another's name, without its statements, and for another policy", async () => {
    const envelope = await summaryOf();
    const failing = async (changed: unknown, how: Partial<Parameters<typeof verifySummary>[1]>): Promise<string[]> => {
      const { checks } = await verifySummary(changed, { brokers, envelopes, ...how });
      return checks.filter(({ ok }) => !ok).map(({ name }) => name);
    };
    expect(await failing(envelope, { brokers: [dids[0]!] })).toEqual(["signature"]);
    expect(await failing({ ...envelope, payload: envelope.payload.replace(/^./, "f") }, {})).toEqual(["signature"]);
    expect(await failing(envelopes[0], { brokers: [dids[0]!] })).toEqual(["statement"]);
    expect(await failing(await summaryOf({ verifier: dids[0]! }), {})).toEqual(["verifier"]);
    expect(await failing(envelope, { envelopes: envelopes.slice(1) })).toEqual(["inputs"]);
    expect(await failing(envelope, { policy: { ...given, version: 3 } })).toEqual(["policy"]);
  });
});

describe("a key that contradicts itself", () => {
  const outputsOf = (
    hash: string,
  ): { outputs: { name: string; path: string; narHash: string; narSize: number }[] } => ({
    outputs: [{ name: "out", path: "/nix/store/vvph8axw8hmsl7afqa1fgk0j69wjfx26-r-a", narHash: hash, narSize: 120 }],
  });

  it("is proved by two envelopes alone, across jobs and kinds of statements", async () => {
    const one = await signedJobResult(liar, outputsOf(narHash));
    const other = await signedProvenance(liar, {
      ...outputsOf(OTHER),
      job: "0199a0b1-c2d3-7000-8abc-0123456789ac",
    });
    const honest = await signedJobResult(await signerNumber(2), outputsOf(OTHER));
    const proof = await proveEquivocation([honest, one, { nonsense: true }, other]);
    expect(proof).toMatchObject({
      ok: true,
      value: { signer: dids[0], about: "/nix/store/vvph8axw8hmsl7afqa1fgk0j69wjfx26-r-a", envelopes: [one, other] },
    });
  });

  it("is not made up from what two keys say, from one statement twice, or from a forged envelope", async () => {
    const one = await signedJobResult(liar, outputsOf(narHash));
    const other = await signedJobResult(liar, outputsOf(OTHER));
    const honest = await signedJobResult(await signerNumber(2), outputsOf(OTHER));
    const forged = { ...other, payload: honest.payload };
    for (const bundle of [[one, honest], [one, one], [one, forged], []])
      expect(await proveEquivocation(bundle)).toMatchObject({ ok: false, code: "none" });
  });

  it("may say different things of different inputs", () => {
    const path = (name: string): { outputs: { name: string; path: string; narHash: string; narSize: number }[] } => ({
      outputs: [{ name: "out", path: `/nix/store/${name}`, narHash: name.repeat(64), narSize: 1 }],
    });
    const one = said({ key: 0, changes: path("a"), sha256: "1" });
    const same = said({ key: 0, changes: path("b"), sha256: "2" });
    const elsewhere = said({ key: 0, changes: { ...path("b"), commit: "b".repeat(40) }, sha256: "3" });
    const system = said({ key: 0, changes: { ...path("b"), system: "aarch64-linux" }, sha256: "4" });
    expect(contradiction(one, same)).toMatchObject({ about: `commit ${commit}` });
    expect([elsewhere, system].map((other) => contradiction(one, other))).toEqual([null, null]);
  });
});
