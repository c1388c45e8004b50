import { type Hook, isRefusal, isValidAt, type TriggersBody, triggersBodySchema } from "@plumule/protocol";
import { describe, expect, test } from "vitest";
import { hookView, type StoredHook, takeHooks } from "../../durable-objects/namespace/core/hooks.ts";
import { formatPosition, type ListName, parsePosition } from "../../durable-objects/namespace/core/positions.ts";
import { isParked, isTransient, retryAt } from "../../durable-objects/namespace/core/retry.ts";
import { checkIfMatch, checkTriggers } from "../../durable-objects/namespace/core/settings.ts";

const KEY = "did:key:z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw";
/** The identity point: under it one signature verifies for every message. */
const IDENTITY = "did:key:z6MkeXATEjyXENzBXBxgC5EHk2JE5aqd7qMGGtDpLUH1e2Sj";
const SECRET = "It's a Secret to Everybody";

function bodyOf(changes: Partial<TriggersBody>): TriggersBody {
  return {
    triggers: [{ name: "ci", refs: ["refs/heads/*"], deployment: "app-{branch}", task: { kind: "repository" } }],
    hooks: [{ id: "seed", keys: [KEY] }],
    ...changes,
  };
}

describe("If-Match", () => {
  test.each([
    [`"v3"`, null],
    [null, "precondition-required"],
    [`"v2"`, "revision-conflict"],
    ["v3", "revision-conflict"],
    ["*", "revision-conflict"],
    ["", "revision-conflict"],
  ])("%s against version 3: %s", (ifMatch, code) => {
    expect(checkIfMatch(ifMatch, 3)?.refused ?? null).toBe(code);
  });
});

describe("rules and hooks", () => {
  test("are taken when names differ, templates are names and keys are good", () => {
    expect(checkTriggers(bodyOf({}))).toBeNull();
    expect(checkTriggers({ triggers: [], hooks: [] })).toBeNull();
  });

  test("with a person whose key accepts forged approvals are refused", () => {
    const approvals = { ci: { delegates: [KEY], approvers: [KEY, IDENTITY] } };
    expect(checkTriggers(bodyOf({ approvals }))).toMatchObject({
      refused: "weak-key",
      errors: [{ pointer: "/approvals/ci/approvers/1" }],
    });
    expect(checkTriggers(bodyOf({ approvals: { other: {} } }))).toMatchObject({
      errors: [{ pointer: "/approvals/other" }],
    });
  });

  test("are refused with every fault and its place", () => {
    const [rule] = bodyOf({}).triggers;
    const refusal = checkTriggers({
      triggers: [rule!, { ...rule!, deployment: "{user}" }],
      hooks: [
        { id: "seed", secret: SECRET },
        { id: "seed", secret: SECRET },
      ],
    });
    expect(refusal?.refused).toBe("invalid-body");
    expect(refusal?.errors?.map(({ pointer }) => pointer)).toEqual([
      "/triggers/1/name",
      "/hooks/1/id",
      "/triggers/1/deployment",
    ]);
  });
});

describe("the hooks of a document", () => {
  const END = "2026-06-01T00:00:00.000Z";
  const before: StoredHook[] = [
    {
      id: "garden",
      secrets: [
        { name: "old", secret: SECRET },
        { name: "new", secret: `${SECRET}!` },
      ],
    },
  ];
  const taken = (hooks: Hook[]): StoredHook[] => {
    const answer = takeHooks(hooks, before);
    if (isRefusal(answer)) throw new Error(JSON.stringify(answer));
    return answer;
  };

  test("keep the secrets that they do not mention", () => {
    expect(taken([{ id: "garden", keys: [KEY] }])).toEqual([{ ...before[0], keys: [KEY] }]);
  });

  test("keep a secret that is named without its text, with a new end, and drop the others", () => {
    expect(taken([{ id: "garden", secrets: [{ name: "old", validBefore: END }] }])[0]?.secrets).toEqual([
      { name: "old", secret: SECRET, validBefore: END },
    ]);
  });

  test("lose their secrets to an empty list, and to another `secret`", () => {
    expect(taken([{ id: "garden", keys: [KEY], secrets: [] }])[0]?.secrets).toEqual([]);
    expect(taken([{ id: "garden", secret: `${SECRET}?` }])[0]?.secrets).toEqual([
      { name: "secret", secret: `${SECRET}?` },
    ]);
  });

  test("shown, and put back as they are shown, stay the same", () => {
    const hooks = taken([
      { id: "garden", signers: [{ key: KEY, revokedAt: END }], statusHosts: ["garden.test"] },
      { id: "seed", keys: [KEY] },
    ]);
    const { hooks: echo } = triggersBodySchema.parse({
      triggers: [],
      hooks: hooks.map(hookView).map(({ hasSecret: _, ...shown }) => shown),
    });
    expect(JSON.stringify(hooks.map(hookView))).not.toContain(SECRET);
    expect(takeHooks(echo, hooks)).toEqual([{ ...hooks[0], keys: [] }, hooks[1]]);
  });

  test.each<[string, string, Hook]>([
    ["a key that accepts forged signatures", "/hooks/0/keys/1", { id: "b", keys: [KEY, IDENTITY] }],
    ["such a key for a time", "/hooks/0/signers/0", { id: "b", signers: [{ key: IDENTITY, validBefore: END }] }],
    [
      "a secret that is not there to be kept",
      "/hooks/0/secrets/0",
      { id: "b", keys: [KEY], secrets: [{ name: "old" }] },
    ],
    [
      "two secrets of one name",
      "/hooks/0/secrets/1",
      { id: "b", secret: SECRET, secrets: [{ name: "secret", secret: SECRET }] },
    ],
    [
      "a mistyped Standard Webhooks secret",
      "/hooks/0/secrets/0",
      { id: "b", secret: "whsec_abcdefghijklmnopqrstuvwxyz!" },
    ],
    ["nothing to verify with", "/hooks/0", { id: "b" }],
    ["the last secret taken away", "/hooks/0", { id: "garden", secrets: [] }],
    ["a key that ends and never ends", "/hooks/0/signers/0", { id: "b", keys: [KEY], signers: [{ key: KEY }] }],
  ])("with %s are refused at %s", (_, pointer, hook) => {
    expect(takeHooks([hook], before)).toMatchObject({ errors: [{ pointer }] });
  });

  test("with more keys than one webhook may try are refused", () => {
    const hooks = Array.from({ length: 5 }, (_, at) => ({ id: `h${at}`, keys: Array.from({ length: 16 }, () => KEY) }));
    expect(takeHooks(hooks, [])).toMatchObject({ refused: "invalid-body", errors: [{ pointer: "/hooks" }] });
  });

  test.each([
    [{}, true],
    [{ validAfter: END }, true],
    [{ validAfter: "2026-06-01T00:00:00.001Z" }, false],
    [{ validBefore: END }, false],
    [{ validBefore: "2026-06-01T00:00:00.001Z" }, true],
    [{ revokedAt: END }, false],
    [{ revokedAt: "2026-07-01T00:00:00.000Z", validAfter: null }, true],
  ])("count within their time: %o is %s", (times, valid) => {
    expect(isValidAt(times, Date.parse(END))).toBe(valid);
  });
});

describe("a list's cursor", () => {
  test.each<[ListName, string]>([
    ["jobs", "01890000-0000-7000-8000-000000000000"],
    ["runners", KEY],
    ["deployments", "a.b_c-D"],
    ["deliveries", "17"],
  ])("of %s comes back", (list, key) => {
    const cursor = formatPosition(list, key);
    expect(cursor).toMatch(/^[A-Za-z0-9_-]+$/);
    expect(parsePosition(list, cursor)).toEqual({ key });
  });

  test.each([[formatPosition("runners", KEY)], [""], ["*"], ["a"], ["am9icw"], ["x".repeat(401)], ["e1:4"]])(
    "%s is none of the list of jobs",
    (cursor) => {
      expect(parsePosition("jobs", cursor)).toMatchObject({ refused: "invalid-cursor" });
    },
  );

  test("may be missing", () => {
    expect(parsePosition("jobs", null)).toEqual({ key: null });
  });
});

describe("a hand-over that failed", () => {
  test("is tried again later and later, and parked after ten attempts", () => {
    const waits = Array.from({ length: 12 }, (_, at) => retryAt(at + 1, 0));
    expect(waits).toEqual([
      1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000, 600_000, 600_000,
    ]);
    expect([isParked(9), isParked(10)]).toEqual([false, true]);
  });

  test("is tried again for a refusal of the moment only", () => {
    expect(
      (["unavailable", "internal", "rate-limited", "idempotency-in-flight"] as const).map((refused) =>
        isTransient({ refused, detail: "" }),
      ),
    ).toEqual([true, true, true, true]);
    expect(
      (["busy", "quota-exceeded", "gone", "invalid-body", "forbidden"] as const).map((refused) =>
        isTransient({ refused, detail: "" }),
      ),
    ).toEqual([false, false, false, false, false]);
  });
});
