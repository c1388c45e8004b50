import type { TriggersBody } from "@plumule/protocol";
import { describe, expect, test } from "vitest";
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

  test("with a key that accepts forged signatures are refused", () => {
    expect(
      checkTriggers(
        bodyOf({
          hooks: [
            { id: "a", secret: SECRET },
            { id: "b", keys: [KEY, IDENTITY] },
          ],
        }),
      ),
    ).toMatchObject({ refused: "weak-key", errors: [{ pointer: "/hooks/1/keys/1" }] });
  });

  test("with more keys than one webhook may try are refused", () => {
    const hooks = Array.from({ length: 5 }, (_, at) => ({ id: `h${at}`, keys: Array.from({ length: 16 }, () => KEY) }));
    expect(checkTriggers(bodyOf({ hooks }))).toMatchObject({
      refused: "invalid-body",
      errors: [{ pointer: "/hooks" }],
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
