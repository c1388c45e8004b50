import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import type { JobDetail, JobView, LockView, SubmitBody } from "@plumule/protocol";
import { afterEach, describe, expect, it, vi } from "vitest";
import { deploymentObject, namespaceObject } from "../../durable-objects/shared/names.ts";
import {
  advance,
  alarmOf,
  eventsOf,
  guardOf,
  type House,
  newHouse,
  ok,
  rowsWritten,
  Runner,
  submit,
} from "./deployment-harness.ts";

const KING = { locks: ["host:king"] };
const SLOW = { timeout: 15_000 };

afterEach(() => vi.useRealTimers());

/** Two deployments of one namespace, and a runner for each. */
async function twoHouses(): Promise<{ one: House; two: House; runner: Runner; other: Runner }> {
  const one = await newHouse();
  const two = { ...one, deployment: deploymentObject(env, one.namespace, "shop") };
  return { one, two, runner: await Runner.in(one), other: await Runner.in(two) };
}

async function detailOf({ deployment }: House, job: string): Promise<JobDetail> {
  return ok(await deployment.job(job));
}

async function viewOf(house: House, job: string): Promise<JobView> {
  return (await detailOf(house, job)).job;
}

async function locksOf({ namespace }: House): Promise<LockView[]> {
  return ok(await namespaceObject(env, namespace).listLocks({ cursor: null, limit: 50 })).items;
}

/** Waits until a job holds its locks. */
async function held(house: House, job: string): Promise<void> {
  await vi.waitFor(async () => expect((await viewOf(house, job)).locks?.held).toBe(true), SLOW);
}

/** Waits until a job waits for a lock, and says who is in the way. */
async function blocked(house: House, job: string): Promise<NonNullable<JobView["waiting"]>> {
  return vi.waitFor(async () => {
    const { waiting } = await viewOf(house, job);
    if (waiting?.lock?.holder === undefined) throw new Error(`not blocked: ${waiting?.detail}`);
    return waiting;
  }, SLOW);
}

describe("two deployments and one lock", () => {
  it("works on one job at a time, shows who has the lock, and goes on by itself", async () => {
    const { one, two, runner, other } = await twoHouses();
    const first = await submit(one, KING);
    await held(one, first.job.id);
    const assignment = await runner.start();
    const second = await submit(two, KING);
    const waiting = await blocked(two, second.job.id);
    expect(waiting).toMatchObject({
      reason: "position",
      position: 1,
      detail: `Waits for lock host:king, used by job ${first.job.id} of deployment web.`,
      lock: { name: "host:king", ahead: 1, holder: { deployment: "web", job: first.job.id, state: "works" } },
    });
    expect(await other.poll(100)).toBeNull();
    expect(await locksOf(one)).toMatchObject([
      {
        name: "host:king",
        holder: { deployment: "web", job: first.job.id },
        waiting: [{ deployment: "shop", job: second.job.id }],
        waitingCount: 1,
      },
    ]);
    const next = other.poll(15_000);
    ok(await runner.finish(assignment));
    expect((await next)?.job).toBe(second.job.id);
  });

  it("tells watchers of one deployment nothing of the other", async () => {
    const { one, two } = await twoHouses();
    const first = await submit(one, KING);
    await held(one, first.job.id);
    const second = await submit(two, KING);
    await blocked(two, second.job.id);
    const events = JSON.stringify(await eventsOf(two));
    expect(events).toContain("Waits for lock host:king, which another job has or gets first.");
    expect(events).not.toContain(first.job.id);
  });

  it.each(["cancelled", "superseded", "removed", "failed in the queue"] as const)(
    "gives the lock to the next when its job is %s",
    async (how) => {
      const { one, two } = await twoHouses();
      const first = await submit(one, { ...KING, timeouts: { queueMs: 3_600_000 } });
      await held(one, first.job.id);
      const second = await submit(two, KING);
      await blocked(two, second.job.id);
      const { deployment } = one;
      if (how === "cancelled")
        ok(await deployment.cancelJob({ actor: "token:test", job: first.job.id, body: {}, guard: guardOf() }));
      if (how === "superseded") await submit(one, { mode: "replace" });
      if (how === "removed") ok(await deployment.remove({ actor: "token:test", body: {}, guard: guardOf() }));
      if (how === "failed in the queue") {
        advance(3_600_001);
        await runDurableObjectAlarm(deployment);
      }
      await held(two, second.job.id);
    },
  );

  it("keeps the lock while the job waits for another attempt", async () => {
    const { one, two, runner } = await twoHouses();
    const first = await submit(one, { ...KING, retry: { onFailure: true } });
    await held(one, first.job.id);
    const second = await submit(two, KING);
    ok(await runner.finish(await runner.start(), "failed"));
    expect(await viewOf(one, first.job.id)).toMatchObject({ state: "queued", locks: { held: true } });
    expect((await blocked(two, second.job.id)).lock?.holder?.job).toBe(first.job.id);
  });

  it("keeps the lock of an effect whose end nobody saw until a person says how it ended", async () => {
    const { one, two, runner } = await twoHouses();
    const first = await submit(one, KING);
    await held(one, first.job.id);
    const assignment = await runner.start();
    const at = new Date().toISOString();
    const { run, leaseToken, epoch } = assignment;
    const events = [{ type: "phase" as const, phase: "applying" as const, at }];
    ok(await one.deployment.report({ run, leaseToken, body: { epoch, number: 1, events } }));
    ok(await runner.finish(assignment, "unknown"));
    expect(await viewOf(one, first.job.id)).toMatchObject({ state: "unknown", locks: { held: true } });
    const second = await submit(two, KING);
    await vi.waitFor(async () => {
      const { lock, detail } = await blocked(two, second.job.id);
      expect(lock?.holder?.state).toBe("unknown");
      expect(detail).toContain(`plumule resolve ${first.job.id} succeeded`);
    }, SLOW);
    expect((await locksOf(one))[0]?.holder?.state).toBe("unknown");
    const call = { actor: "token:test", job: first.job.id, outcome: "failed" as const, reason: null };
    expect(ok(await one.deployment.resolve(call)).locks?.held).toBe(false);
    await held(two, second.job.id);
  });
});

it("costs a job that names locks a handful of rows", async () => {
  const { one, runner } = await twoHouses();
  const namespace = namespaceObject(env, one.namespace);
  const rows = async (): Promise<number> => {
    const count = (state: DurableObjectState): number =>
      state.storage.sql.exec<{ rows: number }>("SELECT total_changes() AS rows").one().rows;
    return (await rowsWritten(one)) + (await runInDurableObject(namespace, (_, state) => count(state)));
  };
  const costOf = async (body: Partial<SubmitBody>): Promise<number> => {
    const before = await rows();
    const parked = await runner.park();
    const { job } = await submit(one, body);
    const assignment = await parked.answer;
    if (assignment?.job !== job.id) throw new Error("another job came");
    ok(await runner.beat(assignment));
    ok(await runner.finish(assignment));
    await vi.waitFor(async () => {
      expect((await viewOf(one, job.id)).state).toBe("succeeded");
      expect(await locksOf(one)).toEqual([]);
      expect(await isPublished(one)).toBe(true);
    }, SLOW);
    return (await rows()) - before;
  };
  await costOf({});
  const plain = await costOf({});
  const locked = await costOf(KING);
  expect(locked - plain).toBeLessThanOrEqual(8);
});

/** Whether the namespace was told everything. */
function isPublished({ deployment }: House): Promise<boolean> {
  const query =
    "SELECT (SELECT max(last) FROM event_rows) = (SELECT json_extract(record, '$.published') FROM lane) AS told";
  return runInDurableObject(deployment, (_, state) => state.storage.sql.exec(query).one()["told"] === 1);
}

describe("locks of several names", () => {
  it("are all taken at once, first come first served, without a deadlock", async () => {
    const one = await newHouse();
    const lane = (name: string): House => ({ ...one, deployment: deploymentObject(env, one.namespace, name) });
    const [a, b, c] = [lane("a"), lane("b"), lane("c")];
    const first = await submit(a, { locks: ["x"] });
    await held(a, first.job.id);
    const both = await submit(b, { locks: ["y", "x"] });
    expect((await blocked(b, both.job.id)).lock).toMatchObject({ name: "x", ahead: 1 });
    // `y` is free, but kept for the one who came first.
    const last = await submit(c, { locks: ["y"] });
    expect((await blocked(c, last.job.id)).detail).toBe(
      `Waits for lock y, which job ${both.job.id} of deployment b gets first.`,
    );
    const cancel = (house: House, job: string): unknown =>
      house.deployment.cancelJob({ actor: "token:test", job, body: {}, guard: guardOf() });
    await cancel(a, first.job.id);
    await held(b, both.job.id);
    expect((await viewOf(c, last.job.id)).locks?.held).toBe(false);
    await cancel(b, both.job.id);
    await held(c, last.job.id);
  });
});

describe("whatever is evicted in between", () => {
  it("goes on with the next job, and no two hold the lock", async () => {
    const { one, two } = await twoHouses();
    const namespace = namespaceObject(env, one.namespace);
    const evict = async (): Promise<void> => {
      await Promise.all([one.deployment.read(), two.deployment.read(), namespace.isOpen()]);
      for (const object of [one.deployment, two.deployment, namespace]) await evictDurableObject(object);
    };
    const first = await submit(one, KING);
    await evict();
    const second = await submit(two, KING);
    await evict();
    // What an instance did not say that died is said by the alarm.
    await vi.waitFor(async () => expect((await locksOf(one))[0]?.waitingCount).toBe(1), SLOW);
    const holder = (await locksOf(one))[0]?.holder?.job ?? "";
    const [winner, loser, its] = holder === first.job.id ? [one, two, second.job.id] : [two, one, first.job.id];
    await held(winner, holder);
    expect((await viewOf(loser, its)).locks?.held).toBe(false);
    ok(await winner.deployment.cancelJob({ actor: "token:test", job: holder, body: {}, guard: guardOf() }));
    await evict();
    await held(loser, its);
  }, 40_000);

  it("takes a lock from a deployment that does not know of it any more", async () => {
    const { one, two } = await twoHouses();
    const namespace = namespaceObject(env, one.namespace);
    const ghost = await submit(one);
    const wanted = { job: ghost.job.id, number: 0, locks: ["host:king"] };
    await namespace.settleLocks({ deployment: "web", released: [], wanted });
    advance(60_000);
    const second = await submit(two, KING);
    await held(two, second.job.id);
    expect(await locksOf(one)).toMatchObject([{ holder: { deployment: "shop" }, waitingCount: 0 }]);
  });

  it("takes back within two hours what nobody wants, also when nobody else does", async () => {
    const { one } = await twoHouses();
    const namespace = namespaceObject(env, one.namespace);
    const ended = await submit(one);
    const wanted = { job: ended.job.id, number: 0, locks: ["host:king"] };
    await namespace.settleLocks({ deployment: "web", released: [], wanted });
    expect(await locksOf(one)).toHaveLength(1);
    for (let count = 0; count < 2; count += 1) {
      advance(3_600_001);
      await runDurableObjectAlarm(namespace);
    }
    expect(await locksOf(one)).toEqual([]);
  });

  it("has a timer as long as something is to be asked or given back", async () => {
    const { one, two } = await twoHouses();
    const first = await submit(one, KING);
    await held(one, first.job.id);
    const second = await submit(two, KING);
    await blocked(two, second.job.id);
    const alarm = await alarmOf(two);
    expect(alarm).toBeLessThan(Date.now() + 31_000);
  });
});
