import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { expect, it } from "vitest";
import { MIGRATIONS } from "../../durable-objects/deployment/migrations.ts";
import { migrate } from "../../durable-objects/shared/migrate.ts";
import { newHouse, ok, Runner, submit, type House } from "./deployment-harness.ts";

/** Takes an object's schema back to what it was after a number of steps, with the rows that it had then. */
async function takeBack({ deployment }: House, steps: number): Promise<void> {
  await runInDurableObject(deployment, async (_, { storage }) => {
    const { sql } = storage;
    await storage.deleteAlarm();
    for (const table of ["log_chunks", "derivation_batches", "verdicts"]) sql.exec(`DROP TABLE ${table}`);
    sql.exec("DELETE FROM schema_migrations WHERE position >= ?", steps);
  });
  await evictDurableObject(deployment);
}

it("brings data of an earlier schema forward, and goes on with it", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const { job } = await submit(house);
  const assignment = await runner.start();
  await takeBack(house, 2);
  expect(ok(await house.deployment.job(job.id)).job.state).toBe("running");
  ok(await runner.finish(assignment, "succeeded", "hello\n"));
  expect(ok(await house.deployment.run(assignment.run)).log).toMatchObject({ state: "complete", bytes: 6 });
  expect(ok(await house.deployment.read()).deployment.currentJob).toBe(job.id);
});

it("reads a lane that was stored before a field was added", async () => {
  const house = await newHouse();
  await submit(house);
  await runInDurableObject(house.deployment, (_, { storage }) => {
    storage.sql.exec("UPDATE lane SET record = json_remove(record, '$.unsweptCount', '$.drops')");
  });
  await evictDurableObject(house.deployment);
  const { job } = await submit(house, { mode: "replace" });
  expect(job.state).toBe("queued");
});

it("starts from nothing, step by step, and refuses a past that was changed", async () => {
  const { deployment } = await newHouse();
  await deployment.submit({
    actor: "token:test",
    body: { task: { kind: "shell", script: "true" } },
    guard: { idempotencyKey: null, bodySha256: "", ifMatch: null },
    dryRun: false,
  });
  await runInDurableObject(deployment, (_, { storage }) => {
    const names = (): string[] =>
      storage.sql
        .exec<{ name: string }>("SELECT name FROM sqlite_master WHERE type = 'table'")
        .toArray()
        .map(({ name }) => name);
    expect(names()).toEqual(
      expect.arrayContaining([
        "lane",
        "jobs",
        "results",
        "requests",
        "log_chunks",
        "derivation_batches",
        "verdicts",
        "event_rows",
      ]),
    );
    const changed = MIGRATIONS.map((step, position) => (position === 1 ? { ...step, sql: `${step.sql} ` } : step));
    expect(() => migrate(storage, changed)).toThrow("append-only");
    expect(() => migrate(storage, MIGRATIONS.slice(0, 2))).toThrow("append-only");
  });
});

it("makes no table for a question about a deployment that does not exist", async () => {
  const { deployment } = await newHouse();
  expect(await deployment.read()).toMatchObject({ refused: "not-found" });
  expect(await deployment.history({ since: null, limit: 1, waitMs: 0 })).toMatchObject({ refused: "not-found" });
  await runInDurableObject(deployment, (_, { storage }) => {
    expect(storage.sql.exec("SELECT name FROM sqlite_master WHERE name = 'lane'").toArray()).toEqual([]);
  });
});

it("makes no table for a write whose sender is not known", async () => {
  const { deployment } = await newHouse();
  const call = { run: "01234567-89ab-7001-8000-000000000001", leaseToken: "made up" };
  expect(await deployment.heartbeat({ ...call, body: { epoch: 1 } })).toMatchObject({ refused: "stale-lease" });
  await runInDurableObject(deployment, (_, { storage }) => {
    expect(storage.sql.exec("SELECT name FROM sqlite_master WHERE name = 'lane'").toArray()).toEqual([]);
  });
});
