import { isRefusal, type Push, type Refusal } from "@plumule/protocol";
import { describe, expect, test } from "vitest";
import { type HookContext, readHookBody } from "../../durable-objects/namespace/core/push.ts";

const AUDIENCE = "https://broker.test/v1/acme";
const BEFORE = "a".repeat(40);
const AFTER = "b".repeat(40);
const NODE = "z6MkvZwzK5oyrxRo9gNsWZCvTDdTSFqNcBeFoPpkmwWBQwmy";
const STRANGER = "z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw";
const OWN = {
  type: "push",
  audience: AUDIENCE,
  repository: "rad:z2hCUNw2T1qU31LyGy7VPEiS7BkxW",
  ref: "refs/heads/main",
  before: BEFORE,
  after: AFTER,
};
const REPOSITORY = {
  id: "rad:z2hCUNw2T1qU31LyGy7VPEiS7BkxW",
  name: "app",
  description: "",
  private: false,
  default_branch: "main",
  url: "https://app.radicle.xyz/nodes/seed/rad:z2hC",
  http_url: "https://seed.test/z2hC.git",
  clone_url: "rad://z2hC",
  delegates: [`did:key:${NODE}`],
  seeder: NODE,
};
const GARDEN_PUSH = {
  author: { id: `did:key:${NODE}`, alias: "ada" },
  before: BEFORE,
  after: AFTER,
  branch: "main",
  repository: REPOSITORY,
  commits: [
    {
      id: AFTER,
      title: "Fix the roof",
      message: "Fix the roof",
      timestamp: 1_700_000_000,
      url: "https://x.test",
      author: { name: "Ada", email: "a@x.test" },
      added: [],
      modified: ["roof"],
      removed: [],
    },
  ],
};
const PATCH_ID = "c".repeat(40);
const GARDEN_PATCH = {
  action: "created",
  repository: REPOSITORY,
  patch: {
    id: PATCH_ID,
    author: { id: `did:key:${NODE}` },
    title: "Add a door",
    state: { status: "open", conflicts: [] },
    before: BEFORE,
    after: AFTER,
    commits: [],
    url: "https://x.test",
    target: BEFORE,
    labels: [],
    assignees: [],
    revisions: [
      { id: PATCH_ID, author: { id: `did:key:${NODE}` }, description: "", base: BEFORE, oid: AFTER, timestamp: 1 },
    ],
  },
};
const GITHUB_PUSH = {
  ref: "refs/heads/main",
  before: BEFORE,
  after: AFTER,
  created: false,
  deleted: false,
  repository: { id: 1, full_name: "a/b", clone_url: "https://github.test/a/b.git" },
  pusher: { name: "ada" },
  sender: { login: "ada" },
  head_commit: { id: AFTER, message: "Fix the roof\n\nIt leaked." },
};

function read(value: unknown, context: Partial<HookContext> = {}): ReturnType<typeof readHookBody> {
  return readHookBody(value, { eventType: null, audience: AUDIENCE, signedByKey: false, ...context });
}

function pushOf(value: unknown, context: Partial<HookContext> = {}): Push {
  const event = read(value, context);
  if (isRefusal(event) || event.kind !== "push") throw new Error(`no push: ${JSON.stringify(event)}`);
  return event.push;
}

function refusalOf(value: unknown, context: Partial<HookContext> = {}): Refusal {
  const event = read(value, context);
  if (!isRefusal(event)) throw new Error(`not refused: ${JSON.stringify(event)}`);
  return event;
}

describe("plumule's own body", () => {
  test("is taken as it is, without what is not known", () => {
    expect(pushOf({ ...OWN, author: null, patch: null, secret: "x" }, { signedByKey: true })).toEqual({
      ...OWN,
      author: null,
      patch: null,
    });
  });

  test("must be for this broker and namespace", () => {
    expect(refusalOf({ ...OWN, audience: "https://broker.test/v1/other" })).toMatchObject({
      refused: "invalid-body",
      errors: [{ pointer: "/audience" }],
    });
    const { audience: _, ...without } = OWN;
    expect(refusalOf(without)).toMatchObject({ refused: "invalid-body", errors: [{ pointer: "/audience" }] });
  });

  test.each([
    ["/after", { after: "b".repeat(39) }],
    ["/after", { after: "--help" }],
    ["/after", { after: "B".repeat(40) }],
    ["/ref", { ref: "refs/heads/--upload-pack=touch x" }],
    ["/ref", { ref: "refs/heads/-x" }],
    ["/ref", { ref: "refs/heads/$(id)" }],
    ["/ref", { ref: "refs/cobs/xyz" }],
    ["/ref", { ref: "refs/heads/a/../../b" }],
    ["/repository", { repository: "rad:z../.." }],
    ["/repository", { repository: "ssh://git.test/x" }],
    ["/type", { type: "merge" }],
  ])("with a bad value is refused at %s: %o", (pointer, change) => {
    expect(refusalOf({ ...OWN, ...change })).toMatchObject({ refused: "invalid-body", errors: [{ pointer }] });
  });

  test("keeps its meaning whatever the unsigned header says", () => {
    expect(pushOf(OWN, { eventType: "ping" })).toEqual(OWN);
    expect(
      refusalOf({ ...OWN, audience: "https://other.test/v1/acme" }, { eventType: "push" }).errors?.[0]?.pointer,
    ).toBe("/audience");
  });
});

describe("a push of Radicle Garden", () => {
  test("becomes a push", () => {
    expect(pushOf(GARDEN_PUSH, { eventType: "push" })).toEqual({
      type: "push",
      audience: AUDIENCE,
      repository: REPOSITORY.id,
      urls: ["https://seed.test/z2hC.git"],
      ref: "refs/heads/main",
      before: BEFORE,
      after: AFTER,
      author: `did:key:${NODE}`,
      message: "Fix the roof",
      node: NODE,
      delegates: [`did:key:${NODE}`],
    });
  });

  test.each([
    [
      "a repository id without `rad:`",
      { repository: { ...REPOSITORY, id: REPOSITORY.id.slice(4) } },
      { repository: REPOSITORY.id },
    ],
    ["a branch with the node's namespace", { branch: `${NODE}/refs/heads/main` }, { ref: "refs/heads/main" }],
    ["a branch as a whole ref", { branch: "refs/heads/feature/a" }, { ref: "refs/heads/feature/a" }],
    ["a branch with a slash", { branch: "feature/a" }, { ref: "refs/heads/feature/a" }],
    ["a tag", { branch: "refs/tags/v1" }, { ref: "refs/tags/v1", type: "tag" }],
    ["no branch", { branch: undefined }, { ref: "refs/heads/main" }],
    ["no commits", { commits: undefined }, { message: undefined }],
    ["times as text", { commits: [{ id: AFTER, title: "x", timestamp: "2026-01-01T00:00:00Z" }] }, { message: "x" }],
    ["no author, who is somebody all the same", { author: null }, { author: "unknown" }],
    [
      "a ref in the namespace of its node, which is the author",
      { branch: `refs/namespaces/${STRANGER}/refs/heads/main` },
      { ref: "refs/heads/main", author: `did:key:${STRANGER}` },
    ],
    ["`before` that is `after`, as Garden's source writes it", { before: AFTER }, { before: undefined }],
    [
      "delegates by node id, and what is no delegate",
      { repository: { ...REPOSITORY, delegates: [NODE, "ada", ""] } },
      { delegates: [`did:key:${NODE}`] },
    ],
  ])("tolerates %s", (_, change, expected) => {
    expect(pushOf({ ...GARDEN_PUSH, ...change })).toMatchObject(expected);
  });

  test("that deletes a branch keeps the zeros", () => {
    expect(pushOf({ ...GARDEN_PUSH, after: "0".repeat(40) }).after).toBe("0".repeat(40));
  });

  test("without a branch and without a default branch is refused", () => {
    expect(
      refusalOf({ ...GARDEN_PUSH, branch: null, repository: { ...REPOSITORY, default_branch: null } }),
    ).toMatchObject({ errors: [{ pointer: "/ref" }] });
  });
});

describe("a patch of Radicle Garden", () => {
  test.each(["created", "updated", "CREATED", "Updated", undefined])(
    "that was %s becomes a push of the patch's ref",
    (action) => {
      expect(pushOf({ ...GARDEN_PATCH, action }, { eventType: "patch_created" })).toMatchObject({
        type: "patch",
        repository: REPOSITORY.id,
        ref: `refs/patches/${PATCH_ID}`,
        patch: PATCH_ID,
        before: undefined,
        base: BEFORE,
        after: AFTER,
        number: 1,
        author: `did:key:${NODE}`,
        message: "Add a door",
      });
    },
  );

  test("is its newest revision's: its author, its base, and what came before it", () => {
    const revisions = [
      ...GARDEN_PATCH.patch.revisions,
      { id: AFTER, author: { id: STRANGER }, description: "", base: AFTER, oid: PATCH_ID, timestamp: 2 },
    ];
    expect(pushOf({ ...GARDEN_PATCH, patch: { ...GARDEN_PATCH.patch, after: PATCH_ID, revisions } })).toMatchObject({
      after: PATCH_ID,
      before: AFTER,
      base: AFTER,
      number: 2,
      author: STRANGER,
    });
    const anonymous = [{ ...revisions[0], author: null }];
    expect(pushOf({ ...GARDEN_PATCH, patch: { ...GARDEN_PATCH.patch, revisions: anonymous } }).author).toBe("unknown");
  });

  test("takes the newest revision when it names no commit", () => {
    const patch = { ...GARDEN_PATCH.patch, after: undefined, revisions: [{ oid: BEFORE }, { oid: AFTER }] };
    expect(pushOf({ ...GARDEN_PATCH, patch }).after).toBe(AFTER);
  });

  test("that was merged starts no job", () => {
    expect(read({ ...GARDEN_PATCH, action: "merged" })).toMatchObject({ kind: "other", type: "patch merged" });
  });
});

describe("an answer that Garden waits for", () => {
  const asked = { context: "ci/x", commit_status_url: "https://garden.test/api/commit-status" };
  const target = {
    url: asked.commit_status_url,
    node: NODE,
    repository: REPOSITORY.id,
    commit: AFTER,
    context: "ci/x",
  };

  test.each([
    ["a push", { ...GARDEN_PUSH, ...asked }],
    ["a patch", { ...GARDEN_PATCH, ...asked }],
  ])("is noted with %s", (_, body) => {
    expect(read(body)).toMatchObject({ kind: "push", status: target });
  });

  test.each([
    ["context", { ...asked, context: null }],
    ["URL", { ...asked, commit_status_url: undefined }],
    ["seeder", { ...asked, repository: { ...REPOSITORY, seeder: null } }],
  ])("needs its %s", (_, change) => {
    expect(read({ ...GARDEN_PUSH, ...change })).toMatchObject({ kind: "push", status: null });
  });

  test("is no part of plumule's own body", () => {
    expect(read({ ...OWN, ...asked })).toEqual({ kind: "push", push: OWN, status: null });
  });
});

describe("a push of GitHub", () => {
  test("becomes a push", () => {
    expect(pushOf(GITHUB_PUSH, { eventType: "push" })).toEqual({
      type: "push",
      audience: AUDIENCE,
      repository: "https://github.test/a/b.git",
      ref: "refs/heads/main",
      before: BEFORE,
      after: AFTER,
      author: "ada",
      message: "Fix the roof\n\nIt leaked.",
    });
  });

  test("of a tag is a tag", () => {
    expect(pushOf({ ...GITHUB_PUSH, ref: "refs/tags/v1" }).type).toBe("tag");
  });

  test("from a place that no runner may fetch is refused", () => {
    expect(refusalOf({ ...GITHUB_PUSH, repository: { clone_url: "http://169.254.169.254/x" } })).toMatchObject({
      errors: [{ pointer: "/repository" }],
    });
  });
});

describe("everything else", () => {
  test.each(["ping", "Issues", "branch_deleted", "release"])("event %s starts no job", (eventType) => {
    expect(read({ zen: "x", repository: { id: 1 } }, { eventType })).toMatchObject({
      kind: "other",
      type: eventType.toLowerCase(),
    });
  });

  test.each([[null], [1], ["text"], [[]]])("%o is no body", (value) => {
    expect(refusalOf(value).refused).toBe("invalid-body");
  });

  test.each([[{}], [{ repository: {} }], [{ repository: { id: "rad:z" }, after: 1 }], [{ patch: {}, repository: {} }]])(
    "%o is none of the known kinds",
    (value) => {
      expect(refusalOf(value)).toMatchObject({ refused: "invalid-body" });
    },
  );

  test("is not taken under a key, which many brokers may trust", () => {
    expect(refusalOf(GARDEN_PUSH, { signedByKey: true })).toMatchObject({
      refused: "invalid-body",
      errors: [{ pointer: "/repository" }],
    });
  });
});
