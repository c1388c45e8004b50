import { type ApprovalRule, type Push, type Trigger, refKeyOf, planJobs } from "@plumule/protocol";
import { describe, expect, test } from "vitest";

const DELEGATE = "did:key:z6MkvZwzK5oyrxRo9gNsWZCvTDdTSFqNcBeFoPpkmwWBQwmy";
const OTHER = "did:key:z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw";
const STRANGER = "did:key:z6MkrJVnaZkeFzdQyMZu1cgjg7k1pZZ6pvBQ7XJPt4swbTQ2";

const push = (changes: Partial<Push> = {}): Push => ({
  type: "patch",
  audience: "https://broker.test/v1/acme",
  repository: "rad:z2hCUNw2T1qU31LyGy7VPEiS7BkxW",
  ref: "refs/heads/main",
  after: "1234567890123456789012345678901234567890",
  author: STRANGER,
  delegates: [DELEGATE],
  ...changes,
});
const rule = (changes: Partial<Trigger> = {}): Trigger => ({
  name: "ci",
  refs: ["**"],
  deployment: "app",
  task: { kind: "repository" },
  ...changes,
});
const planOf = (pushed: Push, approval: ApprovalRule = {}, trigger = rule(), secrets: string[] = []) =>
  planJobs(pushed, [trigger], { secrets: { ci: secrets }, approvals: { ci: approval } })[0]!;
const isHeld = (pushed: Push, approval: ApprovalRule = {}, trigger = rule()): boolean => {
  const plan = planOf(pushed, approval, trigger);
  if (plan.deployment === null) throw new Error(plan.detail);
  return plan.stranger !== null;
};

describe("the author of a push", () => {
  test.each<[string, boolean, Partial<Push>, ApprovalRule, Partial<Trigger>]>([
    ["a delegate that the webhook names", false, { author: DELEGATE }, {}, {}],
    ["a delegate by node id", false, { author: DELEGATE.slice(8) }, {}, {}],
    ["somebody else", true, {}, {}, {}],
    ["somebody else who pushes to a branch of their own namespace", true, { type: "push" }, {}, {}],
    ["a delegate that the rule names", false, { author: OTHER }, { delegates: [OTHER] }, {}],
    ["a delegate of the webhook where the rule names others", true, { author: DELEGATE }, { delegates: [OTHER] }, {}],
    ["one whom the rule trusts", false, {}, { trusted: [STRANGER] }, {}],
    ["one whom the rule is for", false, {}, {}, { authors: [STRANGER.slice(8)] }],
    ["one who may approve, and is not trusted", true, { author: OTHER }, { approvers: [OTHER] }, {}],
    ["one whom the node follows, where the rule says nothing", true, { followed: true }, {}, {}],
    ["one whom the node follows, where the rule lets them", false, { followed: true }, { followed: true }, {}],
    ["one whom the node does not follow", true, { followed: false }, { followed: true }, {}],
    ["not named in a patch", true, { author: null }, {}, {}],
    ["not named by a plain git host, which let them push", false, { author: null, type: "push" }, {}, {}],
    [
      "a login of another host, which let them push",
      false,
      { author: "ada", type: "push", repository: "https://git.test/a" },
      {},
      {},
    ],
    ["a login in a patch", true, { author: "ada", repository: "https://git.test/a" }, {}, {}],
    ["unknown on Radicle, where everybody may push", true, { author: "unknown", type: "push" }, {}, {}],
  ])("%s: held is %s", (_, held, pushed, approval, trigger) => {
    expect(isHeld(push(pushed), approval, rule(trigger))).toBe(held);
  });

  test("counts as followed only where the push names them", () => {
    expect(isHeld(push({ author: null, followed: true }), { followed: true })).toBe(true);
  });
});

describe("the job of a stranger", () => {
  test("is held, has no secrets, and asks for isolation and a runner that lets strangers in", () => {
    const trigger = rule({ requires: { features: ["kvm"], isolation: "cgroup", pool: "fast" }, mode: "replace" });
    const plan = planOf(push(), { approvers: [OTHER], pool: "strangers" }, trigger, ["deploy-key"]);
    expect(plan).toMatchObject({
      body: {
        hold: true,
        mode: "replace",
        requires: { features: ["kvm", "untrusted"], isolation: "bwrap", pool: "strangers" },
      },
      stranger: { author: STRANGER, approvers: [DELEGATE, OTHER] },
    });
    expect(plan).not.toHaveProperty("body.secrets");
    expect(planOf(push({ author: DELEGATE }), {}, trigger, ["deploy-key"])).toMatchObject({
      body: { secrets: [{ name: "deploy-key" }], requires: trigger.requires },
    });
  });

  test.each([
    [undefined, undefined, "bwrap"],
    [undefined, "userns", "userns"],
    ["container", "userns", "container"],
    ["container", undefined, "container"],
  ] as const)("never runs below the rule's own isolation: %s and %s give %s", (own, strangers, expected) => {
    const trigger = rule(own === undefined ? {} : { requires: { isolation: own } });
    const plan = planOf(push(), strangers === undefined ? {} : { isolation: strangers }, trigger);
    expect(plan).toMatchObject({ body: { requires: { isolation: expected } } });
  });

  test("is not made when nobody could approve it, and says what to do", () => {
    expect(planOf(push({ delegates: undefined }))).toMatchObject({
      deployment: null,
      detail: expect.stringContaining("nobody could approve") as string,
    });
  });

  test("is never an effect", () => {
    expect(planOf(push(), {}, rule({ task: { kind: "effect", installable: ".#deploy" } }))).toMatchObject({
      deployment: null,
      detail: expect.stringContaining("effect") as string,
    });
  });
});

test("refs of a stranger are ordered apart from those of the delegates, who share theirs", () => {
  const keys = [push(), push({ author: OTHER }), push({ author: DELEGATE }), push({ author: null })].map(refKeyOf);
  expect(new Set(keys.slice(0, 3)).size).toBe(3);
  expect(keys[2]).toBe(keys[3]);
});
