// Locks through the edge: who may see who holds one, what may be asked, and what is refused.
import type { JobView } from "@plumule/protocol";
import { beforeAll, describe, expect, it, vi } from "vitest";
import { ask, newTenant, problemIn, type Tenant, told } from "./edge-harness.ts";

let tenant: Tenant;
let holder: JobView;
let waiter: JobView;

const bodyOf = (locks: unknown): unknown => ({ task: { kind: "shell", script: "true" }, locks });
const submit = (deployment: string, locks: unknown): Promise<Response> =>
  ask("POST", `${tenant.at}/deployments/${deployment}/jobs`, { token: tenant.tokens.submit, body: bodyOf(locks) });
const jobOf = async (id: string, token: string): Promise<JobView> =>
  (await told<{ job: JobView }>(ask("GET", `${tenant.at}/jobs/${id}`, { token }), 200)).job;

beforeAll(async () => {
  tenant = await newTenant();
  ({ job: holder } = await told<{ job: JobView }>(submit("web", ["host:king"]), 202));
  await vi.waitFor(async () => expect((await jobOf(holder.id, tenant.tokens.read)).locks?.held).toBe(true), 10_000);
  ({ job: waiter } = await told<{ job: JobView }>(submit("shop", ["host:king"]), 202));
  await vi.waitFor(
    async () => expect((await jobOf(waiter.id, tenant.tokens.read)).waiting?.lock?.holder).toBeDefined(),
    10_000,
  );
});

describe("who holds a lock", () => {
  it("is shown to whoever may read both deployments", async () => {
    const { waiting } = await jobOf(waiter.id, tenant.tokens.read);
    expect(waiting?.lock?.holder).toEqual({ deployment: "web", job: holder.id, state: "works" });
    expect(waiting?.detail).toBe(`Waits for lock host:king, used by job ${holder.id} of deployment web.`);
  });

  it("is not shown to whoever is confined to the one that waits", async () => {
    const body = { name: "confined", scopes: ["read"], deployments: ["shop"] };
    const { token } = await told<{ token: string }>(
      ask("POST", `${tenant.at}/tokens`, { token: tenant.tokens.admin, body }),
      201,
    );
    const { waiting } = await jobOf(waiter.id, token);
    expect(waiting?.lock).toEqual({ name: "host:king", ahead: 1 });
    expect(waiting?.detail).toBe("Waits for lock host:king, which another job has or gets first.");
    for (const path of ["/deployments/shop", "/deployments/shop/events", `/jobs/${waiter.id}`])
      expect(await (await ask("GET", `${tenant.at}${path}`, { token })).text()).not.toContain(holder.id);
    expect((await ask("GET", `${tenant.at}/locks`, { token })).status).toBe(403);
  });

  it("is listed for operators, page by page", async () => {
    const { token } = { token: tenant.tokens.operate };
    expect((await ask("GET", `${tenant.at}/locks`, { token: tenant.tokens.submit })).status).toBe(403);
    await told(submit("other", ["tf:main"]), 202);
    const seen = await vi.waitFor(async () => {
      type Page = { items: { name: string; waitingCount: number }[]; nextCursor: string | null };
      const first = await told<Page>(ask("GET", `${tenant.at}/locks?limit=1`, { token }), 200);
      expect(first.nextCursor).not.toBeNull();
      const next = await told<Page>(
        ask("GET", `${tenant.at}/locks?limit=1&cursor=${first.nextCursor}`, { token }),
        200,
      );
      expect(next.nextCursor).toBeNull();
      return [...first.items, ...next.items].map(({ name, waitingCount }) => [name, waitingCount]);
    }, 10_000);
    expect(seen).toEqual([
      ["host:king", 1],
      ["tf:main", 0],
    ]);
    const odd = await ask("GET", `${tenant.at}/locks?cursor=odd`, { token });
    expect((await problemIn(odd)).code).toBe("invalid-cursor");
  });
});

it.each([
  ["a name with capitals", ["Host"], "/locks/0"],
  ["a name that begins with a colon", [":king"], "/locks/0"],
  ["a name that is too long", ["a".repeat(129)], "/locks/0"],
  ["a name twice", ["a", "a"], "/locks"],
  ["none", [], "/locks"],
  ["too many", Array.from({ length: 17 }, (_, index) => `lock-${index}`), "/locks"],
  ["no list", "host:king", "/locks"],
])("refuses %s, and says where", async (_, locks, pointer) => {
  const answer = await submit("refused", locks);
  expect(answer.status).toBe(400);
  const { errors } = await problemIn(answer);
  expect(errors?.map((one) => one.pointer)).toEqual([pointer]);
});

it("gives locks to the jobs of a rule, and refuses those of a rule that is not there", async () => {
  const rule = { name: "main", refs: ["refs/heads/main"], deployment: "web", task: { kind: "repository" } };
  const put = (locks: unknown): Promise<Response> =>
    ask("PUT", `${tenant.at}/triggers`, {
      token: tenant.tokens.admin,
      headers: { "if-match": '"v0"' },
      body: { triggers: [rule], hooks: [], locks },
    });
  const { errors } = await problemIn(await put({ other: ["host:king"] }));
  expect(errors).toEqual([{ pointer: "/locks/other", detail: "there is no rule of this name" }]);
  expect(await told(put({ main: ["host:king"] }), 200)).toMatchObject({ locks: { main: ["host:king"] } });
});
