import {
  type Push,
  type RuleCheck,
  type Trigger,
  type TriggersBody,
  checkRule,
  choose,
  planJobs,
} from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import { checkTriggers } from "../../durable-objects/namespace/core/settings.ts";

const push: Push = {
  type: "push",
  audience: "https://broker.test/v1/acme",
  repository: "rad:z2hCUNw2T1qU31LyGy7VPEiS7BkxW",
  ref: "refs/heads/main",
  after: "a".repeat(40),
};
const rule: Trigger = { name: "ci", refs: ["refs/**"], deployment: "app", task: { kind: "repository" } };
const pathsOf = (paths: string[] | undefined, pathsTruncated?: boolean): RuleCheck | undefined =>
  checkRule(
    {
      ...push,
      ...(paths === undefined ? {} : { paths }),
      ...(pathsTruncated === undefined ? {} : { pathsTruncated }),
    },
    rule,
    ["src/**", "!**.md"],
  ).at(-1);

describe("patterns with `!`", () => {
  it.each([
    [["refs/heads/**", "!refs/heads/wip/*"], "refs/heads/main", true],
    [["refs/heads/**", "!refs/heads/wip/*"], "refs/heads/wip/a", false],
    [["refs/heads/**", "!refs/heads/wip/*"], "refs/heads/wip/a/b", true],
    [["!refs/heads/wip/*", "refs/heads/wip/a"], "refs/heads/wip/a", false],
    [["!refs/heads/wip/*"], "refs/heads/main", false],
    [["**", "!"], "refs/heads/main", true],
    [["**", "!!x"], "x", true],
  ])("%j choose %s: %s", (patterns, text, expected) => expect(choose(patterns, text).ok).toBe(expected));

  it("are named when they leave a ref out", () => {
    const [plan] = planJobs(push, [{ ...rule, refs: ["refs/**", "!refs/heads/ma*"] }]);
    expect(plan).toMatchObject({ deployment: null, detail: "`!refs/heads/ma*` leaves refs/heads/main out" });
  });

  it("are refused where they stand alone, with a pointer", () => {
    const body: TriggersBody = {
      triggers: [{ ...rule, refs: ["!refs/tags/**"] }],
      hooks: [],
      paths: { ci: ["!docs/**"], other: ["**"] },
    };
    expect(checkTriggers(body)).toMatchObject({
      errors: [
        { pointer: "/paths/other", detail: "there is no rule of this name" },
        { pointer: "/paths/ci", detail: expect.stringContaining("add what they are excluded from") },
        { pointer: "/triggers/0/refs", detail: expect.stringContaining("add what they are excluded from") },
      ],
    });
  });

  it("are bounded together, since each may be compared with every path", () => {
    const triggers = Array.from({ length: 10 }, (_, at) => ({ ...rule, name: `r${at}` }));
    const paths = Object.fromEntries(triggers.map(({ name }) => [name, Array.from({ length: 32 }, () => "**")]));
    expect(checkTriggers({ triggers, hooks: [], paths })).toMatchObject({ errors: [{ pointer: "/paths" }] });
  });
});

describe("changed paths", () => {
  it.each([
    ["one that is asked for", ["README.md", "src/a.ts"], undefined, true, false, "`src/**` matches src/a.ts"],
    ["none that is asked for", ["README.md", "src/a.md"], undefined, false, false, "none of the 2 paths"],
    ["one that is not asked for", ["README.md"], undefined, false, false, "does not ask for"],
    ["none at all", [], undefined, false, false, "no path changed"],
    ["unknown ones", undefined, undefined, true, true, "which paths changed is not known"],
    ["too many to tell", ["README.md"], true, true, true, "more paths changed than the 1"],
    ["too many, but one is asked for", ["src/a.ts"], true, true, false, "`src/**` matches"],
  ])("%s: %j", (_, paths, truncated, ok, assumed, detail) => {
    const check = pathsOf(paths, truncated);
    expect(check).toMatchObject({ name: "paths", ok, detail: expect.stringContaining(detail) });
    expect(check?.assumed === true).toBe(assumed);
  });

  it("that are not known make a job which says so, and those of other rules nothing", () => {
    const plans = planJobs(push, [rule, { ...rule, name: "all" }], { paths: { ci: ["src/**"] } });
    expect(plans.map((plan) => (plan.deployment === null ? plan.detail : plan.note))).toEqual([
      "which paths changed is not known, which counts as a match",
      null,
    ]);
  });

  it("are quoted short, whatever their names", () => {
    expect(pathsOf([`${"x".repeat(4_000)}`])?.detail.length).toBeLessThan(250);
  });
});

describe("a rule named as what every object has", () => {
  it("is a rule like any other", () => {
    const triggers = [{ ...rule, name: "constructor" }];
    expect(checkTriggers({ triggers, hooks: [], skipUnchanged: ["constructor"], quorums: {} })).toBeNull();
    const [plan] = planJobs(push, triggers, { secrets: {}, approvals: {}, quorums: {}, locks: {}, paths: {} });
    expect(plan).toMatchObject({ deployment: "app", body: { task: rule.task } });
    expect(plan).not.toHaveProperty("body.quorum");
    expect(plan).not.toHaveProperty("body.locks");
  });
});

describe("names of deployments", () => {
  const named = (deployment: string, change: Partial<Push>): unknown => {
    const [plan] = planJobs({ ...push, ...change }, [{ ...rule, deployment }]);
    return plan?.deployment ?? (plan !== undefined && "detail" in plan ? plan.detail : null);
  };
  it.each([
    ["release-{tag}", { type: "tag", ref: "refs/tags/v1.2" }, "release-v1_2e2"],
    ["release-{tag}", { ref: "refs/heads/v1" }, "the deployment's name needs `{tag}`, and this is not a tag"],
    ["p-{patch}", { type: "patch", ref: "refs/patches/a", patch: "" }, expect.stringContaining("needs `{patch}`")],
    ["p-{patch}", { patch: "../../etc" }, "p-_2e_2e._2e_2e.etc"],
    ["x-{branch}", { ref: "refs/heads/{patch}" }, "x-_7bpatch_7d"],
    ["{branch}", { ref: "refs/heads/_x" }, expect.stringContaining("which is no name of a deployment")],
    ["x-{branch}", { ref: `refs/heads/${"y".repeat(200)}` }, expect.stringContaining("1 to 128 characters")],
  ] as const)("%s of %j", (template, change, expected) => expect(named(template, change)).toEqual(expected));
});
