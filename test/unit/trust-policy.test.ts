import { describe, expect, test } from "vitest";
import {
  acceptPolicy,
  defaultPolicy,
  ruleFor,
  type TrustPolicy,
  trustPolicySchema,
  type TrustRule,
} from "../../protocol/src/trust.ts";
import { decide } from "../../protocol/src/verdict.ts";
import { dids, policy, said } from "./trust-fixtures.ts";

const NOW = Date.parse("2026-11-21T00:00:00Z");
const MAIN = "refs/heads/main";

describe("a trust policy", () => {
  test("by default believes any one runner of the namespace, for every ref and for none", () => {
    const byDefault = defaultPolicy([dids[0]!, dids[1]!]);
    for (const ref of [MAIN, "refs/patches/9af2", ""]) {
      expect(decide(byDefault, ref, [said({ key: 1 })], NOW)).toMatchObject({ verdict: "agreed", needed: 1 });
      expect(decide(byDefault, ref, [said({ key: 4 })], NOW)).toMatchObject({ verdict: "pending" });
    }
    expect(trustPolicySchema.safeParse(byDefault).success).toBe(true);
    for (const runners of [[], dids]) expect(acceptPolicy(null, defaultPolicy(runners), NOW).ok).toBe(true);
  });

  test("uses the first rule that matches a ref", () => {
    const rules: TrustRule[] = ["refs/heads/main", "refs/heads/*", "*"].map((ref, index) => ({
      ref,
      require: { k: index + 1 },
      onDivergence: "block",
    }));
    const many = { ...policy({ k: 1 }), rules };
    const kOf = (ref: string): number | undefined => ruleFor(many, ref)?.require.k;
    expect(["refs/heads/main", "refs/heads/main2", "refs/heads/a/b", "refs/tags/v1", ""].map(kOf)).toEqual([
      1, 2, 2, 3, 3,
    ]);
  });

  test("is taken when its version is the next one", () => {
    const first = policy({ k: 3 });
    expect(acceptPolicy(null, first, NOW)).toEqual({ ok: true, value: first });
    expect(acceptPolicy(first, { ...first, version: 2 }, NOW).ok).toBe(true);
    for (const version of [1, 3])
      expect(acceptPolicy(first, { ...first, version }, NOW)).toMatchObject({ ok: false, code: "wrong-version" });
  });

  test.each<[string, string, () => TrustPolicy]>([
    ["already-expired", "/expires", () => policy({ k: 1 }, { expires: "2026-11-20T00:00:00Z" })],
    [
      "weak-key",
      "/signers/1/key",
      () => policy({ k: 1 }, { signers: { 1: { key: "did:key:z6MkeXATEjyXENzBXBxgC5EHk2JE5aqd7qMGGtDpLUH1e2Sj" } } }),
    ],
    ["duplicate-key", "/signers/2/key", () => policy({ k: 1 }, { signers: { 2: { key: dids[0]! } } })],
    ["out-of-reach", "/rules/0/require", () => policy({ k: 4 })],
    ["out-of-reach", "/rules/0/require", () => policy({ k: 1, distinctOperators: 4 })],
    [
      "out-of-reach",
      "/rules/0/require",
      () => policy({ k: 3 }, { signers: { 3: { revokedAt: "2026-11-20T00:00:00Z" } } }),
    ],
  ])("is refused as %s at %s", (code, pointer, make) => {
    expect(acceptPolicy(null, make(), NOW)).toMatchObject({
      ok: false,
      code,
      detail: expect.stringContaining(pointer) as string,
    });
  });

  test.each<[string, (valid: TrustPolicy) => unknown]>([
    ["a threshold of 0", (valid) => ({ ...valid, rules: [{ ...valid.rules[0], require: { k: 0 } }] })],
    ["version 0", (valid) => ({ ...valid, version: 0 })],
    ["a star in the middle of a ref", (valid) => ({ ...valid, rules: [{ ...valid.rules[0], ref: "refs/*/main" }] })],
    ["an unknown field", (valid) => ({ ...valid, signer: [] })],
    ["a key that is no did:key", (valid) => ({ ...valid, signers: [{ key: "alice", operator: "a" }] })],
    ["an empty operator", (valid) => ({ ...valid, signers: [{ key: dids[0], operator: "" }] })],
  ])("with %s is no policy", (_, change) => {
    expect(trustPolicySchema.safeParse(policy({ k: 1 })).success).toBe(true);
    expect(trustPolicySchema.safeParse(change(policy({ k: 1 }))).success).toBe(false);
  });
});
