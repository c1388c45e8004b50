import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import type { DeliveryView, JobState, JobView, Trigger } from "@plumule/protocol";
import { describe, expect, test, vi } from "vitest";
import { deploymentObject } from "../../durable-objects/shared/names.ts";
import {
  batchOf,
  bindings,
  bytesOf,
  deploymentOf,
  execute,
  granted,
  hookOf,
  hubSignature,
  openNamespace,
} from "./namespace-fixtures.ts";
import { COMMITS, RULE } from "./namespace-hook-fixtures.ts";

/** What `test/support/garden.ts`, which answers behind the Workers, shares with the hook, and how it lists what it was told. */
const GARDEN_SECRET = "a secret that Garden and the hook share";
type Told = { at: string; status: number; body: Record<string, unknown> };

const DELEGATE = "did:key:z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw";
const [ONE, TWO, THREE] = COMMITS;
const FREE: Trigger = { ...RULE, hold: false };

type Garden = Awaited<ReturnType<typeof openGarden>>;

/** A namespace with a hook of Garden's; every one has a context of its own, by which its Garden tells them apart. */
async function openGarden(triggers: Trigger[] = [FREE], statusHosts: string[] | null = ["eu.garden.test"]) {
  const place = await openNamespace();
  const hooks = [{ id: "garden", secret: GARDEN_SECRET, ...(statusHosts === null ? {} : { statusHosts }) }];
  granted(await place.calls.putTriggers({ actor: "admin", body: { triggers, hooks }, ifMatch: `"v0"` }));
  return { ...place, context: `ci-${place.name}` };
}

async function push(garden: Garden, changes: Record<string, unknown> = {}): Promise<DeliveryView> {
  const body = bytesOf({
    repository: {
      id: "z2hCUNw2T1qU31LyGy7VPEiS7BkxW",
      default_branch: "main",
      delegates: [DELEGATE],
      seeder: "z6MkSeed",
    },
    author: { id: DELEGATE },
    branch: "main",
    before: ONE,
    after: TWO,
    context: garden.context,
    commit_status_url: "https://eu.garden.test/api/commit-status",
    ...changes,
  });
  const headers = { "x-hub-signature-256": await hubSignature(GARDEN_SECRET, body), "x-radicle-event-type": "push" };
  return granted(await garden.calls.receiveHook(hookOf(body, headers, garden.audience, "garden"))).delivery;
}

async function seen({ context }: { context: string }): Promise<Told[]> {
  return (await fetch(`https://eu.garden.test/seen?context=${context}`)).json();
}

/** What Garden was told, once it is this. */
async function told(garden: Garden, ...expected: string[]): Promise<Told[]> {
  return vi.waitFor(async () => {
    const all = await seen(garden);
    expect(all.filter(({ status }) => status === 200).map(({ body }) => body["state"])).toEqual(expected);
    return all;
  }, 8_000);
}

async function deliveryOf({ calls }: Garden, id: string): Promise<DeliveryView | undefined> {
  return granted(await calls.listDeliveries({ cursor: null, limit: 50 })).items.find((one) => one.id === id);
}

/** The job of the newest delivery, once it is made. */
async function jobOf(garden: Garden): Promise<string> {
  return vi.waitFor(async () => {
    const [newest] = granted(await garden.calls.listDeliveries({ cursor: null, limit: 1 })).items;
    const job = newest?.results[0]?.job;
    if (job == null) throw new Error(`no job yet: ${JSON.stringify(newest)}`);
    return job;
  }, 5_000);
}

/** Each test waits for calls to the outside, one after the other, ms. */
const timeout = 30_000;

let through = 100;
/** Says in the deployment's name that a job has this state now. */
async function moved(garden: Garden, job: string, state: JobState, steps: Partial<JobView>[] = []): Promise<void> {
  const { job: view } = granted(await deploymentObject(bindings, garden.name, "app-main").job(job));
  through += 1;
  const reason =
    state === "failed" ? { code: "exit-code" as const, detail: "The script ended with exit code 1." } : null;
  const parent = { ...view, state, reason, ...(steps.length === 0 ? {} : { stepCount: steps.length }) };
  await garden.calls.publish(
    batchOf(
      deploymentOf(garden.name, "app-main"),
      [...steps.map((step) => ({ ...view, state, reason: null, ...step })), parent],
      through + steps.length,
    ),
  );
  through += steps.length;
}

describe("a webhook that asks for an answer", { timeout }, () => {
  test("gets pending, running and success, signed, in order, with the job's page", async () => {
    const garden = await openGarden();
    await push(garden);
    const job = await jobOf(garden);
    await told(garden, "pending");
    await moved(garden, job, "running");
    await told(garden, "pending", "running");
    await moved(garden, job, "succeeded");
    const calls = await told(garden, "pending", "running", "success");
    expect(calls.at(-1)?.body).toEqual({
      node_id: "z6MkSeed",
      repo_id: "z2hCUNw2T1qU31LyGy7VPEiS7BkxW",
      sha: TWO,
      context: garden.context,
      state: "success",
      description: "The job succeeded.",
      target_url: `https://broker.test/j/${job}`,
    });
    await vi.waitFor(async () => {
      const [delivery] = granted(await garden.calls.listDeliveries({ cursor: null, limit: 1 })).items;
      expect(delivery?.status).toEqual({ context: garden.context, state: "success", detail: "success was told" });
    }, 5_000);
    await moved(garden, job, "running");
    expect(await execute(garden.name, "SELECT * FROM status_jobs")).toEqual([]);
    await told(garden, "pending", "running", "success");
  });

  test("gets success of a task file that became jobs only when all of them have succeeded", async () => {
    const garden = await openGarden();
    await push(garden);
    const job = await jobOf(garden);
    await told(garden, "pending");
    const step = (id: string, state: JobState): Partial<JobView> => ({
      id: `ffffffff-ffff-7000-8000-00000000000${id}`,
      state,
      step: { parent: job, name: id, needs: [] },
    });
    await moved(garden, job, "succeeded", [step("1", "running"), step("2", "queued")]);
    await told(garden, "pending", "running");
    await moved(garden, job, "succeeded", [step("1", "succeeded"), step("2", "failed")]);
    await told(garden, "pending", "running", "failure");
  });

  test("gets the reason of a failure, and survives a restart in between", async () => {
    const garden = await openGarden();
    const { id } = await push(garden);
    const job = await jobOf(garden);
    // An eviction between the call and its record would tell it twice.
    await vi.waitFor(
      async () => expect((await deliveryOf(garden, id))?.status?.detail).toBe("pending was told"),
      5_000,
    );
    await evictDurableObject(bindings.NAMESPACE.getByName(garden.name));
    await moved(garden, job, "failed");
    const calls = await told(garden, "pending", "failure");
    expect(calls.at(-1)?.body["description"]).toBe("The script ended with exit code 1.");
  });

  test("is told at once that no job comes of it, instead of waiting in vain", async () => {
    const garden = await openGarden([{ ...FREE, refs: ["refs/tags/*"] }]);
    await push(garden);
    const [call] = await told(garden, "failure");
    expect(call?.body["description"]).toBe("No job: no pattern of the rule matches refs/heads/main");
  });

  test("for another context of the same push is answered about the same job", async () => {
    const garden = await openGarden();
    await push(garden);
    const job = await jobOf(garden);
    const other = { ...garden, context: `${garden.context}-other` };
    expect((await push(other)).state).toBe("duplicate");
    await told(other, "pending");
    await moved(garden, job, "succeeded");
    await told(garden, "pending", "success");
    await told(other, "pending", "success");
  });

  test("is answered about the job of a push that somebody else told of first, and wanted no answer", async () => {
    const garden = await openGarden();
    const first = await push(garden, { context: null });
    const job = await jobOf(garden);
    expect(await push(garden)).toMatchObject({
      state: "duplicate",
      results: [{ detail: expect.stringContaining(first.id) as string }],
    });
    await told(garden, "pending");
    await moved(garden, job, "succeeded");
    await told(garden, "pending", "success");
  });

  test("is answered anew when it is handled again", async () => {
    const garden = await openGarden();
    const { id } = await push(garden);
    await moved(garden, await jobOf(garden), "failed");
    await told(garden, "pending", "failure");
    granted(await garden.calls.redeliver({ actor: "token:op", id }));
    await told(garden, "pending", "failure", "pending");
  });
});

describe("a Garden that is away", { timeout }, () => {
  test("is told again, and of states that waited only the last", async () => {
    const garden = await openGarden();
    await fetch(`https://eu.garden.test/fail?context=${garden.context}&times=1`);
    await push(garden);
    const job = await jobOf(garden);
    await vi.waitFor(async () => expect(await seen(garden)).toHaveLength(1), 5_000);
    await moved(garden, job, "running");
    await moved(garden, job, "succeeded");
    await execute(garden.name, "UPDATE outbox SET due_at = 1");
    await runInDurableObject(bindings.NAMESPACE.getByName(garden.name), (namespace) => namespace.alarm());
    const calls = await told(garden, "success");
    expect(calls.map(({ status, body }) => [status, body["state"]])).toEqual([
      [503, "pending"],
      [200, "success"],
    ]);
    expect(await execute(garden.name, "SELECT * FROM outbox")).toEqual([]);
  });

  test("for good is given up, and the delivery says so", async () => {
    const garden = await openGarden();
    await fetch(`https://eu.garden.test/fail?context=${garden.context}&times=99`);
    const { id } = await push(garden);
    await jobOf(garden);
    await vi.waitFor(async () => expect(await seen(garden)).toHaveLength(1), 5_000);
    await vi.waitFor(async () => {
      await execute(garden.name, "UPDATE outbox SET attempts = 9, due_at = 1");
      await runInDurableObject(bindings.NAMESPACE.getByName(garden.name), (namespace) => namespace.alarm());
      expect((await deliveryOf(garden, id))?.status?.detail).toBe("given up: eu.garden.test answered 503");
    }, 5_000);
    expect(await execute(garden.name, "SELECT * FROM outbox")).toEqual([]);
  });
});

describe("an address that a webhook brings", { timeout }, () => {
  test.each([
    [
      "a host that the hook does not name",
      "https://other.garden.test/api",
      "the host other.garden.test is not allowed",
    ],
    ["plain http", "http://eu.garden.test/api", "only https"],
    ["a user", "https://user:pass@eu.garden.test/api", "a user and password"],
    ["a port", "https://eu.garden.test:8080/api", "port 8080"],
    ["an address in digits", "https://2130706433/api", "an address in digits"],
    ["no URL", "eu.garden.test", "not a URL"],
  ])("with %s is never called, and the delivery says why", async (_, url, why) => {
    const garden = await openGarden();
    const { id, status } = await push(garden, { commit_status_url: url });
    expect(status).toMatchObject({ state: null, detail: expect.stringContaining(why) as string });
    await moved(garden, await jobOf(garden), "succeeded");
    expect((await deliveryOf(garden, id))?.status?.state).toBeNull();
    expect(await seen(garden)).toEqual([]);
  });

  test("is called by no hook that names no hosts", async () => {
    const garden = await openGarden([FREE], null);
    const { status } = await push(garden);
    expect(status?.detail).toContain("the hook names no `statusHosts`");
    await jobOf(garden);
    expect(await seen(garden)).toEqual([]);
  });

  test("that redirects is not followed", async () => {
    const garden = await openGarden([FREE], ["moved.garden.test"]);
    const { id } = await push(garden, { commit_status_url: "https://moved.garden.test/api" });
    await vi.waitFor(async () => {
      expect((await deliveryOf(garden, id))?.status?.detail).toBe("not told: moved.garden.test answered 302");
    }, 5_000);
    expect((await seen(garden)).map(({ at, status }) => [at, status])).toEqual([
      ["https://moved.garden.test/api", 302],
    ]);
  });

  test("is asked nothing once its host is taken out of the hook", async () => {
    const garden = await openGarden();
    await push(garden, { after: THREE });
    const job = await jobOf(garden);
    await told(garden, "pending");
    const body = { triggers: [FREE], hooks: [{ id: "garden", statusHosts: [] }] };
    granted(await garden.calls.putTriggers({ actor: "admin", body, ifMatch: `"v1"` }));
    await moved(garden, job, "succeeded");
    await told(garden, "pending");
  });
});
