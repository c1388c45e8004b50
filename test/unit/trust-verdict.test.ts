import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Claims } from "../../protocol/src/claims.ts";
import { decide, type Decision } from "../../protocol/src/verdict.ts";
import { verifyStatement } from "../../protocol/src/verify.ts";
import {
  commit,
  dids,
  narHash,
  policy,
  run,
  said,
  type Said,
  signedJobResult,
  signerNumber,
} from "./trust-fixtures.ts";

const NOW = Date.parse("2026-11-21T00:00:00Z");
const MAIN = "refs/heads/main";
const GOOD = narHash;
const BAD = "0".repeat(64);

const standings = (decision: Decision): string[] => decision.votes.map((vote) => vote.standing).toSorted();

describe("a verdict", () => {
  test("is pending while no trusted key has spoken", () => {
    expect(decide(policy({ k: 1 }), MAIN, [], NOW)).toMatchObject({ verdict: "pending", agreeing: 0, needed: 1 });
    expect(decide(policy({ k: 1 }), MAIN, [said({ key: 4 })], NOW)).toMatchObject({
      verdict: "pending",
      votes: [],
      strangers: [{ signer: dids[4] }],
    });
  });

  test("is agreed when k independent keys state the same outputs", () => {
    const decision = decide(policy({ k: 2 }), MAIN, [said({ key: 0 }), said({ key: 1 })], NOW);
    expect(decision).toMatchObject({
      verdict: "agreed",
      agreeing: 2,
      needed: 2,
      groups: [{ operators: ["north", "south"], outputs: [{ narHash: GOOD }] }],
    });
    expect(decision.votes.map((vote) => vote.group)).toEqual([0, 0]);
  });

  test("counts what was built for a stranger only where the policy names that builder", async () => {
    const vote = await verifyStatement(
      await signedJobResult(await signerNumber(1), {
        runner: { did: dids[0]!, version: "1", isolation: "bwrap", system: "x86_64-linux", untrusted: true },
      }),
      { signers: [dids[0]!] },
    );
    if (!vote.ok) throw new Error(JSON.stringify(vote.checks));
    expect(vote.claims.builderId).toBe(`${dids[0]}#untrusted-bwrap-v1`);
    const one = policy({ k: 1 });
    expect(standings(decide(one, MAIN, [vote], NOW))).toEqual(["wrong-builder"]);
    const signers = one.signers.map((signer) => ({ ...signer, builderIds: [vote.claims.builderId!] }));
    expect(standings(decide({ ...one, signers }, MAIN, [vote], NOW))).toEqual(["counted"]);
  });

  test("gives one vote to a key, however often it signs", () => {
    const again = [
      said({ key: 0 }),
      said({ key: 0, sha256: "again" }),
      said({ key: 0, changes: { run: `${run.slice(0, -1)}0` } }),
    ];
    expect(decide(policy({ k: 2 }), MAIN, again, NOW)).toMatchObject({ verdict: "insufficient", agreeing: 1 });
  });

  test("gives one vote to an operator, however many keys it has", () => {
    expect(decide(policy({ k: 2 }), MAIN, [said({ key: 0 }), said({ key: 2 })], NOW)).toMatchObject({
      verdict: "insufficient",
      agreeing: 1,
    });
  });

  test("gives one vote to a key that the policy names under two operators", () => {
    const doubled = policy({ k: 2 });
    doubled.signers.push({ key: dids[0]!, operator: "west" });
    expect(decide(doubled, MAIN, [said({ key: 0 })], NOW)).toMatchObject({
      verdict: "insufficient",
      agreeing: 1,
      votes: [{ operator: "north" }],
    });
  });

  test("asks for as many operators as the rule says, where that is more than k", () => {
    const statements = [said({ key: 0 }), said({ key: 1 })];
    expect(decide(policy({ k: 1, distinctOperators: 3 }), MAIN, statements, NOW)).toMatchObject({
      verdict: "insufficient",
      needed: 3,
    });
    expect(decide(policy({ k: 1, distinctOperators: 3 }), MAIN, [...statements, said({ key: 3 })], NOW)).toMatchObject({
      verdict: "agreed",
    });
  });

  test("is diverged when trusted keys state different outputs of the same inputs, even against a majority", () => {
    const statements = [said({ key: 0 }), said({ key: 1 }), said({ key: 3, nar: BAD })];
    expect(decide(policy({ k: 2 }), MAIN, statements, NOW)).toMatchObject({
      verdict: "diverged",
      diverging: true,
      agreeing: 2,
    });
    expect(decide(policy({ k: 2 }, { onDivergence: "warn" }), MAIN, statements, NOW)).toMatchObject({
      verdict: "agreed",
      diverging: true,
    });
  });

  test("never picks one of two equal sides, even where divergence only warns", () => {
    expect(
      decide(policy({ k: 1 }, { onDivergence: "warn" }), MAIN, [said({ key: 0 }), said({ key: 1, nar: BAD })], NOW),
    ).toMatchObject({ verdict: "diverged" });
  });

  test("compares only success where the rule says so", () => {
    expect(
      decide(policy({ k: 2, compare: "result" }), MAIN, [said({ key: 0 }), said({ key: 1, nar: BAD })], NOW),
    ).toMatchObject({ verdict: "agreed", diverging: false });
  });

  test("counts a key that contradicts itself for neither side", () => {
    const decision = decide(policy({ k: 1 }), MAIN, [said({ key: 0 }), said({ key: 0, nar: BAD })], NOW);
    expect(decision).toMatchObject({ verdict: "insufficient", agreeing: 0, diverging: false });
    expect(standings(decision)).toEqual(["equivocated", "equivocated"]);
    expect(
      decide(policy({ k: 1 }), MAIN, [said({ key: 0 }), said({ key: 0, nar: BAD }), said({ key: 1 })], NOW),
    ).toMatchObject({ verdict: "agreed", agreeing: 1 });
  });

  test("counts an operator whose keys contradict each other for neither side, and shows the divergence", () => {
    const decision = decide(
      policy({ k: 1 }, { onDivergence: "warn" }),
      MAIN,
      [said({ key: 0 }), said({ key: 2, nar: BAD })],
      NOW,
    );
    expect(decision).toMatchObject({ verdict: "diverged", agreeing: 0 });
    expect(standings(decision)).toEqual(["operator-divided", "operator-divided"]);
  });

  test.each<[string, Partial<Claims>]>([
    ["commit", { commit: "1".repeat(40) }],
    ["task", { taskSha256: "1".repeat(64) }],
    ["configuration", { configurationSha256: "1".repeat(64) }],
    ["flake.lock", { flakeLockSha256: "1".repeat(64) }],
    ["system", { system: "aarch64-linux" }],
  ])("does not compare statements about another %s", (_, changes) => {
    const decision = decide(
      policy({ k: 3 }),
      MAIN,
      [said({ key: 0 }), said({ key: 1 }), said({ key: 3, nar: BAD, changes })],
      NOW,
    );
    expect(decision).toMatchObject({ verdict: "insufficient", agreeing: 2, diverging: false });
    expect(standings(decision)).toEqual(["counted", "counted", "not-comparable"]);
  });

  test("is not vetoed by a failure", () => {
    const failed = said({ key: 3, changes: { result: "failed", outputs: [] } });
    expect(decide(policy({ k: 2 }), MAIN, [said({ key: 0 }), said({ key: 1 }), failed], NOW)).toMatchObject({
      verdict: "agreed",
    });
    expect(decide(policy({ k: 1 }), MAIN, [failed], NOW)).toMatchObject({
      verdict: "insufficient",
      votes: [{ standing: "not-succeeded" }],
    });
  });

  test.each(["failed", "cancelled", "skipped", "refused", "unknown"] as const)(
    "counts no run that ended as %s",
    (result) => {
      expect(
        decide(policy({ k: 1, compare: "result" }), MAIN, [said({ key: 0, changes: { result } })], NOW),
      ).toMatchObject({ verdict: "insufficient", agreeing: 0 });
    },
  );

  test("counts a key only for what was finished while it was valid", () => {
    const from = policy({ k: 1 }, { signers: { 0: { validAfter: "2026-11-20T10:01:00.001Z" } } });
    const until = policy({ k: 1 }, { signers: { 0: { validBefore: "2026-11-20T10:01:00.000Z" } } });
    const exactly = policy(
      { k: 1 },
      { signers: { 0: { validAfter: "2026-11-20T10:01:00.000Z", validBefore: "2026-11-20T10:01:00.001Z" } } },
    );
    for (const outside of [from, until])
      expect(decide(outside, MAIN, [said({ key: 0 })], NOW)).toMatchObject({
        verdict: "insufficient",
        votes: [{ standing: "outside-validity" }],
      });
    expect(decide(exactly, MAIN, [said({ key: 0 })], NOW)).toMatchObject({ verdict: "agreed" });
  });

  test("counts only builders that the policy names for the key", () => {
    const sandboxed = policy({ k: 1 }, { signers: { 0: { builderIds: [`${dids[0]!}#bwrap-v1`] } } });
    expect(decide(sandboxed, MAIN, [said({ key: 0 })], NOW)).toMatchObject({ verdict: "agreed" });
    for (const builderId of [`${dids[0]!}#process-group-v1`, null]) {
      expect(decide(sandboxed, MAIN, [said({ key: 0, changes: { builderId } })], NOW)).toMatchObject({
        verdict: "insufficient",
        votes: [{ standing: "wrong-builder" }],
      });
    }
  });

  test("is revoked when a key's revocation took what was agreed, for old statements too, and says so only then", () => {
    const revoking = policy({ k: 2 }, { signers: { 1: { revokedAt: "2026-11-20T23:00:00Z" } } });
    const statements = [said({ key: 0 }), said({ key: 1 })];
    expect(decide(revoking, MAIN, statements, NOW)).toMatchObject({ verdict: "revoked", agreeing: 1 });
    expect(decide(revoking, MAIN, statements, NOW - 3600_001)).toMatchObject({ verdict: "agreed" });
    expect(decide(revoking, MAIN, [said({ key: 1 })], NOW)).toMatchObject({ verdict: "insufficient" });
    expect(decide(revoking, MAIN, [...statements, said({ key: 3 })], NOW)).toMatchObject({
      verdict: "agreed",
      agreeing: 2,
    });
  });

  test("is expired from the moment that the policy names", () => {
    const expiring = policy({ k: 1 }, { expires: "2026-11-21T00:00:00Z" });
    expect(decide(expiring, MAIN, [said({ key: 0 })], NOW)).toMatchObject({ verdict: "expired" });
    expect(decide(expiring, MAIN, [said({ key: 0 })], NOW - 1)).toMatchObject({ verdict: "agreed" });
  });

  test("is insufficient for a ref without a rule", () => {
    expect(decide(policy({ k: 1 }), "refs/tags/v1", [said({ key: 0 })], NOW)).toMatchObject({
      verdict: "insufficient",
      needed: null,
    });
  });

  test("takes no provenance for a vote", () => {
    expect(
      decide(
        policy({ k: 1 }),
        MAIN,
        [said({ key: 0, changes: { predicateType: "https://slsa.dev/provenance/v1" } })],
        NOW,
      ),
    ).toMatchObject({ verdict: "pending", votes: [] });
  });

  test("is reached from signed envelopes", async () => {
    const signers = await Promise.all([signerNumber(1), signerNumber(2)]);
    const verified = await Promise.all(
      signers.map(async (signer) =>
        verifyStatement(await signedJobResult(signer), { signers: dids, expected: { commit } }),
      ),
    );
    const statements = verified.flatMap((each) => (each.ok ? [each] : []));
    expect(decide(policy({ k: 2 }), MAIN, statements, NOW)).toMatchObject({ verdict: "agreed", agreeing: 2 });
  });
});

describe("verdicts in general", () => {
  const result = fc.constantFrom<Claims["result"]>("succeeded", "succeeded", "succeeded", "failed");
  const system = fc.constantFrom("x86_64-linux", "x86_64-linux", "aarch64-linux");
  const utterance = (keys: readonly number[]): fc.Arbitrary<Said> =>
    fc.record({
      key: fc.constantFrom(...keys),
      nar: fc.constantFrom(GOOD, GOOD, BAD),
      changes: fc.record({ result, system }),
    });
  const trustedSaid = fc.array(utterance([0, 1, 2, 3]), { maxLength: 7 });
  const untrustedSaid = fc.array(utterance([4, 5]), { maxLength: 4 });
  const anyPolicy = fc
    .record({
      k: fc.integer({ min: 1, max: 3 }),
      compare: fc.constantFrom("outputs" as const, "result" as const),
      onDivergence: fc.constantFrom("block" as const, "warn" as const),
      revoked: fc.option(fc.nat({ max: 3 })),
    })
    .map(
      ({ k, compare, onDivergence, revoked }) =>
        () =>
          policy(
            { k, compare },
            {
              onDivergence,
              ...(revoked === null ? {} : { signers: { [revoked]: { revokedAt: "2026-11-20T12:00:00Z" } } }),
            },
          ),
    );

  test("do not depend on the order of the statements, nor on repetition (P10, I12)", () => {
    const shuffled = trustedSaid.chain((all) =>
      fc.tuple(fc.constant(all), fc.shuffledSubarray([...all, ...all], { minLength: all.length * 2 })),
    );
    fc.assert(
      fc.property(anyPolicy, shuffled, (make, [all, other]) => {
        expect(decide(make(), MAIN, other.map(said), NOW)).toEqual(decide(make(), MAIN, all.map(said), NOW));
      }),
      { numRuns: 300 },
    );
  });

  test("are not changed by statements of keys that the policy does not name (P10, I12)", () => {
    fc.assert(
      fc.property(anyPolicy, trustedSaid, untrustedSaid, (make, trusted, untrusted) => {
        const { strangers: _, ...alone } = decide(make(), MAIN, trusted.map(said), NOW);
        const { strangers, ...together } = decide(make(), MAIN, [...untrusted, ...trusted].map(said), NOW);
        expect(together).toEqual(alone);
        expect(strangers.length).toBe(new Set(untrusted.map((each) => JSON.stringify(said(each)))).size);
      }),
      { numRuns: 300 },
    );
  });

  test("count at most one vote per trusted key and per operator, and agree to nothing with less than k (I13)", () => {
    fc.assert(
      fc.property(anyPolicy, trustedSaid, untrustedSaid, (make, trusted, untrusted) => {
        const decision = decide(make(), MAIN, [...trusted, ...untrusted].map(said), NOW);
        const succeeded = trusted.filter((each) => each.changes?.result === "succeeded");
        expect(decision.agreeing).toBeLessThanOrEqual(new Set(succeeded.map((each) => each.key)).size);
        expect(decision.agreeing).toBeLessThanOrEqual(
          new Set(succeeded.map((each) => (each.key === 2 ? 0 : each.key))).size,
        );
        if (decision.verdict === "agreed") expect(decision.agreeing).toBeGreaterThanOrEqual(decision.needed!);
      }),
      { numRuns: 300 },
    );
  });

  test("never turn into agreement because a failure is withheld", () => {
    fc.assert(
      fc.property(anyPolicy, trustedSaid, (make, trusted) => {
        const withheld = trusted.filter((each) => each.changes?.result !== "failed");
        const verdictOf = (all: Said[]): boolean => decide(make(), MAIN, all.map(said), NOW).verdict === "agreed";
        expect(verdictOf(withheld)).toBe(verdictOf(trusted));
      }),
      { numRuns: 300 },
    );
  });

  test("never count a revoked key (I19)", () => {
    fc.assert(
      fc.property(trustedSaid, (all) => {
        const revoking = policy({ k: 1 }, { signers: { 0: { revokedAt: "2026-11-20T12:00:00Z" } } });
        const without = decide(revoking, MAIN, all.filter((each) => each.key !== 0).map(said), NOW);
        expect(decide(revoking, MAIN, all.map(said), NOW)).toMatchObject({
          agreeing: without.agreeing,
          diverging: without.diverging,
          groups: without.groups,
        });
      }),
      { numRuns: 300 },
    );
  });
});
