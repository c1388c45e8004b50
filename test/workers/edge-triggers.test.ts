// Rules that are tried through the edge: what is explained, what is refused, and that nothing changes.
import type { TriggersTest } from "@plumule/protocol";
import { beforeAll, describe, expect, it } from "vitest";
import { ask, newTenant, problemIn, type Tenant, told } from "./edge-harness.ts";

const REPOSITORY = "rad:z2hCUNw2T1qU31LyGy7VPEiS7BkxW";
const [ALICE, BOB] = ["A", "B"].map((letter) => `did:key:z6Mk${letter.repeat(44)}`) as [string, string];
const event = { type: "push", repository: REPOSITORY, ref: "refs/heads/main", after: "a".repeat(40) };
let tenant: Tenant;

const tried = (body: unknown): Promise<TriggersTest> =>
  told(ask("POST", `${tenant.at}/triggers/test`, { token: tenant.tokens.read, body }), 200);

beforeAll(async () => {
  tenant = await newTenant();
  const task = { kind: "shell", script: "true" };
  const body = {
    hooks: [{ id: "seed", secret: "of-twenty-four-characters-or-more" }],
    triggers: [
      { name: "main", refs: ["refs/heads/main"], deployment: "app", task },
      { name: "docs", refs: ["refs/heads/**"], deployment: "docs-{branch}", task },
      { name: "patches", events: ["patch"], refs: ["refs/patches/*"], deployment: "p-{patch}", task },
    ],
    paths: { docs: ["docs/**"] },
  };
  const headers = { "if-match": '"v0"' };
  await told(ask("PUT", `${tenant.at}/triggers`, { token: tenant.tokens.admin, body, headers }), 200);
});

describe("trying the rules", () => {
  it("says of every rule what comes of a push, and why not", async () => {
    const { version, push, detail, results } = await tried({ ...event, paths: ["src/a.ts"] });
    expect([version, detail, push]).toMatchObject([1, null, { ...event, paths: ["src/a.ts"] }]);
    expect(results).toMatchObject([
      { trigger: "main", deployment: "app", detail: "a job", checks: [{ name: "ref", ok: true }] },
      {
        trigger: "docs",
        deployment: null,
        detail: "the rule does not ask for the path that changed, src/a.ts",
        checks: [
          { name: "ref", ok: true },
          { name: "paths", ok: false },
        ],
      },
      { trigger: "patches", deployment: null, detail: "the rule is for patch, this is a push" },
    ]);
  });

  it("says when something is not known and counts as a match", async () => {
    const { results } = await tried(event);
    expect(results[1]).toMatchObject({
      deployment: "docs-main",
      detail: "a job; which paths changed is not known, which counts as a match",
      checks: [{ ok: true }, { name: "paths", ok: true, assumed: true }],
    });
  });

  it("says of a stranger's patch that it is held, and who may approve", async () => {
    const patch = { ...event, type: "patch", ref: "refs/patches/f00", patch: "f00", author: BOB, delegates: [ALICE] };
    const { results } = await tried(patch);
    expect(results[2]).toMatchObject({
      deployment: "p-f00",
      detail: expect.stringMatching(/^held: did:key:z6MkB+ is neither a delegate/),
      approvers: [ALICE],
    });
  });

  it("reads what Garden and GitHub send, and says of what is no push why nothing starts", async () => {
    const github = { ref: "refs/heads/main", after: event.after, repository: { clone_url: "https://git.test/a.git" } };
    expect((await tried(github)).results[0]).toMatchObject({ deployment: "app" });
    const garden = { repository: { id: REPOSITORY }, action: "merged", patch: { id: "f00" } };
    expect(await tried(garden)).toMatchObject({ push: null, detail: expect.stringContaining("merged"), results: [] });
  });

  it("changes nothing", async () => {
    await tried(event);
    const token = tenant.tokens.read;
    for (const path of ["/deliveries", "/jobs", "/deployments"])
      expect(await told(ask("GET", `${tenant.at}${path}`, { token }), 200)).toMatchObject({ items: [] });
    expect((await ask("GET", `${tenant.at}/triggers`, { token })).headers.get("etag")).toBe('"v1"');
  });

  it.each([
    ["a ref that is none", { ...event, ref: "main" }, "/ref"],
    ["a commit that is none", { ...event, after: "HEAD" }, "/after"],
    ["a webhook for another broker", { ...event, audience: "https://other.test/v1/acme" }, "/audience"],
    ["too many paths", { ...event, paths: Array.from({ length: 501 }, () => "a") }, "/paths"],
  ])("refuses %s, with a pointer", async (_, body, pointer) => {
    const answer = await ask("POST", `${tenant.at}/triggers/test`, { token: tenant.tokens.read, body });
    expect(answer.status).toBe(400);
    expect((await problemIn(answer)).errors?.[0]?.pointer).toBe(pointer);
  });

  it("is for whoever may read the whole namespace", async () => {
    expect((await ask("POST", `${tenant.at}/triggers/test`, { body: event })).status).toBe(401);
    const body = { name: "confined", scopes: ["read"], deployments: ["app"] };
    const made = ask("POST", `${tenant.at}/tokens`, { token: tenant.tokens.admin, body });
    const { token } = await told<{ token: string }>(made, 201);
    expect((await ask("POST", `${tenant.at}/triggers/test`, { token, body: event })).status).toBe(403);
  });
});
