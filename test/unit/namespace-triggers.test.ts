import fc from "fast-check";
import {
  deploymentIdSchema,
  matchesPattern,
  type Push,
  submitBodySchema,
  type Trigger,
  repositoryKey,
  planJobs,
  templateFault,
} from "@plumule/protocol";
import { describe, expect, test } from "vitest";
import { checkTriggers } from "../../durable-objects/namespace/core/settings.ts";

const REPOSITORY = "rad:z2hCUNw2T1qU31LyGy7VPEiS7BkxW";
const COMMIT = "1234567890123456789012345678901234567890";

function pushOf(changes: Partial<Push> = {}): Push {
  return {
    type: "push",
    audience: "https://broker.test/v1/acme",
    repository: REPOSITORY,
    ref: "refs/heads/main",
    after: COMMIT,
    ...changes,
  };
}

function ruleOf(changes: Partial<Trigger> = {}): Trigger {
  return { name: "ci", refs: ["refs/heads/**"], deployment: "app-{branch}", task: { kind: "repository" }, ...changes };
}

function planOf(push: Push, rule: Trigger): { deployment: string | null; detail?: string } {
  return planJobs(push, [rule])[0]!;
}

describe("patterns", () => {
  test.each([
    ["refs/heads/main", "refs/heads/main", true],
    ["refs/heads/main", "refs/heads/mainline", false],
    ["refs/heads/*", "refs/heads/main", true],
    ["refs/heads/*", "refs/heads/feature/a", false],
    ["refs/heads/**", "refs/heads/feature/a", true],
    ["refs/heads/*/a", "refs/heads/feature/a", true],
    ["refs/heads/release-*.*", "refs/heads/release-1.2", true],
    ["refs/heads/release-*.*", "refs/heads/release-12", false],
    ["**", "", true],
    ["*", "", true],
    ["**/x", "refs/x", true],
    ["refs/heads/ma.n", "refs/heads/main", false],
    ["refs/heads/ma?n", "refs/heads/main", false],
    ["refs/heads/[a-z]*", "refs/heads/main", false],
    ["refs/heads/é*", "refs/heads/écran", true],
  ])("%s and %s: %s", (pattern, text, expected) => {
    expect(matchesPattern(pattern, text)).toBe(expected);
  });

  test("agree with a plain regular expression", () => {
    const word = fc.string({ unit: fc.constantFrom("a", "b", "/", "*"), maxLength: 9 });
    fc.assert(
      fc.property(word, word, (pattern, text) => {
        const source = pattern.replace(/\*\*|\*/g, (stars) => (stars === "**" ? ".*" : "[^/]*"));
        expect(matchesPattern(pattern, text.replaceAll("*", "c"))).toBe(
          new RegExp(`^${source}$`).test(text.replaceAll("*", "c")),
        );
      }),
      { numRuns: 2_000 },
    );
  });

  test("cost little however many stars they have", () => {
    const started = performance.now();
    expect(matchesPattern("**a".repeat(80), `${"a".repeat(254)}b`)).toBe(false);
    expect(performance.now() - started).toBeLessThan(500);
  });
});

describe("a rule that matches", () => {
  test("gives a submit body that the schema takes, for the commit of the push", () => {
    const rule = ruleOf({
      mode: "replace",
      priority: "high",
      hold: true,
      requires: { systems: ["x86_64-linux"] },
      urls: ["https://mirror.test/a.git"],
    });
    const [plan] = planJobs(
      pushOf({ message: "Fix the roof\n\nIt leaked.", urls: ["https://seed.test/a.git", "https://mirror.test/a.git"] }),
      [rule],
    );
    expect(plan).toEqual({
      trigger: "ci",
      deployment: "app-main",
      body: {
        task: { kind: "repository" },
        source: {
          repository: REPOSITORY,
          commit: COMMIT,
          ref: "refs/heads/main",
          urls: ["https://mirror.test/a.git", "https://seed.test/a.git"],
        },
        mode: "replace",
        priority: "high",
        requires: { systems: ["x86_64-linux"] },
        hold: true,
        summary: "Fix the roof",
      },
      stranger: null,
      note: null,
      checks: [{ name: "ref", ok: true, detail: "`refs/heads/**` matches refs/heads/main" }],
    });
    expect(submitBodySchema.safeParse((plan as { body: unknown }).body).success).toBe(true);
  });

  test.each([
    [
      "an https URL with and without .git",
      { repositories: ["https://git.test/a/b"] },
      { repository: "https://git.test/a/b.git/" },
    ],
    ["an author by did:key and by node id", { authors: ["did:key:z6MkA"] }, { author: "z6MkA" }],
    [
      "an event that it names",
      { events: ["tag" as const], refs: ["refs/tags/v*"] },
      { type: "tag" as const, ref: "refs/tags/v1" },
    ],
  ])("takes %s as the same", (_, rule, push) => {
    expect(planOf(pushOf(push), ruleOf(rule)).detail).toBeUndefined();
  });
});

describe("a rule that does not match says why", () => {
  test.each([
    ["the ref was deleted", {}, { after: "0".repeat(40) }],
    ["the ref was deleted", {}, { after: "0".repeat(64) }],
    ["the rule is for patch, this is a push", { events: ["patch" as const] }, {}],
    ["does not name the repository", { repositories: ["https://git.test/other"] }, {}],
    ["no pattern of the rule matches refs/heads/main", { refs: ["refs/tags/*"] }, {}],
    ["asks for an author, the push names none", { authors: ["did:key:z6MkA"] }, {}],
    ["does not name the author", { authors: ["did:key:z6MkA"] }, { author: "did:key:z6MkB" }],
    ["this is not a patch", { deployment: "pr-{patch}" }, {}],
    ["no name of a deployment", { deployment: "{ref}-".repeat(20) }, {}],
  ])("%s", (words, rule, push) => {
    const plan = planOf(pushOf(push), ruleOf(rule));
    expect(plan.deployment).toBeNull();
    expect(plan.detail).toContain(words);
  });
});

describe("the name of the deployment", () => {
  test.each([
    ["app-{branch}", {}, "app-main"],
    ["app-{branch}", { ref: "refs/heads/feature/a" }, "app-feature.a"],
    ["app-{branch}", { ref: "refs/heads/release_1.2" }, "app-release_5f1_2e2"],
    ["v{branch}", { ref: "refs/tags/1.0", type: "tag" as const }, "v1_2e0"],
    ["{repository}", {}, "z2hCUNw2T1qU31LyGy7VPEiS7BkxW"],
    ["{repository}", { repository: "https://git.test/a/b.git" }, "git_2etest.a.b"],
    ["{ref}", {}, "refs.heads.main"],
    ["pr-{patch}", { ref: "refs/patches/ab", patch: "ab" }, "pr-ab"],
    ["x{branch}{branch}", { ref: "refs/heads/$&" }, "x_24_26_24_26"],
    ["fixed", {}, "fixed"],
  ])("%s of %o is %s", (deployment, push, expected) => {
    const refs = ["**"];
    expect(planOf(pushOf(push), ruleOf({ deployment, refs })).deployment).toBe(expected);
  });

  test("is safe whatever the ref, and different for different refs", () => {
    const ref = fc.string({ unit: "binary", minLength: 1, maxLength: 9 });
    fc.assert(
      fc.property(ref, ref, (one, other) => {
        const [a, b] = [one, other].map(
          (branch) => planOf(pushOf({ ref: `refs/heads/${branch}` }), ruleOf({ refs: ["**"] })).deployment,
        );
        expect(deploymentIdSchema.safeParse(a).success).toBe(true);
        expect(a === b).toBe(one.toWellFormed() === other.toWellFormed());
      }),
    );
  });

  test.each([
    ["app-{branch}", null],
    ["{repository}.{ref}_{patch}", null],
    ["app-{user}", "{user} is not one of"],
    ["app-{}", "{} is not one of"],
    ["app {branch}", "around the placeholders"],
    ["-{branch}", "around the placeholders"],
    ["a/{branch}", "around the placeholders"],
    ["app-{branch", "around the placeholders"],
  ])("template %s: %s", (template, fault) => {
    if (fault === null) expect(templateFault(template)).toBeNull();
    else expect(templateFault(template)).toContain(fault);
  });
});

test("a repository has one spelling", () => {
  expect(repositoryKey("https://git.test/a.git/")).toBe("https://git.test/a");
  expect(repositoryKey(REPOSITORY)).toBe(REPOSITORY);
  expect(repositoryKey("file:///srv/a.git")).toBe("file:///srv/a.git");
});

test("with locks gives them to its jobs alone", () => {
  const locks = { ci: ["host:king"] };
  const [first, second] = planJobs(pushOf(), [ruleOf(), ruleOf({ name: "docs" })], { locks });
  expect(first).toMatchObject({ body: { locks: ["host:king"] } });
  expect(second).not.toHaveProperty("body.locks");
});

test("with limits gives them to its jobs, and stands only beside a rule", () => {
  const limits = { ci: { memoryBytes: 2 ** 30, logBytes: 2 ** 20 } };
  const rules = [ruleOf(), ruleOf({ name: "docs" })];
  const [first, second] = planJobs(pushOf(), rules, { limits });
  expect(first).toMatchObject({ body: { limits: limits.ci } });
  expect(second).not.toHaveProperty("body.limits");
  expect(checkTriggers({ triggers: rules, hooks: [], limits })).toBeNull();
  expect(checkTriggers({ triggers: rules, hooks: [], limits: { other: {} } })).toMatchObject({
    errors: [{ pointer: "/limits/other" }],
  });
});

test("a rule's quorum goes into its jobs, and stands only for a rule that can have one", () => {
  const quorum = { replicas: 3, agree: 2 };
  const [first, second] = planJobs(pushOf(), [ruleOf(), ruleOf({ name: "docs" })], { quorums: { ci: quorum } });
  expect(first).toMatchObject({ body: { quorum } });
  expect(second).not.toHaveProperty("body.quorum");
  const effect = ruleOf({ task: { kind: "effect", installable: ".#deploy" } });
  const faults = (triggers: Trigger[], name: string): unknown =>
    checkTriggers({ triggers, hooks: [], quorums: { [name]: quorum } });
  expect(faults([ruleOf()], "ci")).toBeNull();
  expect(faults([ruleOf()], "other")).toMatchObject({ errors: [{ pointer: "/quorums/other" }] });
  expect(faults([effect], "ci")).toMatchObject({ errors: [{ pointer: "/quorums/ci" }] });
});

test("a rule may skip what has not changed, when Nix can tell", () => {
  const rules = [ruleOf({ task: { kind: "repository" } }), ruleOf({ name: "docs" })];
  const [first, second] = planJobs(pushOf(), rules, { skipUnchanged: ["ci"] });
  expect(first).toMatchObject({ body: { skipUnchanged: true } });
  expect(second).not.toHaveProperty("body.skipUnchanged");
  const faults = (triggers: Trigger[], more: object = {}): unknown =>
    checkTriggers({ triggers, hooks: [], skipUnchanged: ["ci"], ...more });
  expect(faults(rules)).toBeNull();
  for (const refused of [
    faults([ruleOf({ name: "docs" })]),
    faults([ruleOf({ task: { kind: "shell", script: "true" } })]),
    faults(rules, { quorums: { ci: { replicas: 2, agree: 2 } } }),
  ])
    expect(refused).toMatchObject({ errors: [{ pointer: "/skipUnchanged/0" }] });
});
