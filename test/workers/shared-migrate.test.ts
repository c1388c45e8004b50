import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, it } from "vitest";
import { MIGRATIONS } from "../../durable-objects/deployment/migrations.ts";
import { migrate, type Migration } from "../../durable-objects/shared/migrate.ts";
import { deploymentObject } from "../../durable-objects/shared/names.ts";
import { type House, newHouse, ok, submit } from "./deployment-harness.ts";

/** Steps that a later version may take on a lane with jobs: a column, a table that is filled from it, and an index. */
const LATER: readonly Migration[] = [
  { id: "later-column", sql: "ALTER TABLE jobs ADD COLUMN note TEXT NOT NULL DEFAULT ''; UPDATE jobs SET note = id;" },
  {
    id: "later-table",
    sql: "CREATE TABLE notes (job TEXT PRIMARY KEY, note TEXT NOT NULL) STRICT; INSERT INTO notes SELECT id, note FROM jobs;",
  },
  { id: "later-index", sql: "CREATE INDEX notes_by_note ON notes (note);" },
];

type Kept = { schema: unknown[]; jobs: unknown[]; events: unknown[]; applied: unknown[] };

function kept({ deployment }: House): Promise<Kept> {
  return runInDurableObject(deployment, (_, { storage: { sql } }) => ({
    schema: sql
      .exec("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE '\\_cf%' ESCAPE '\\' ORDER BY name")
      .toArray(),
    jobs: sql.exec("SELECT * FROM jobs").toArray(),
    events: sql.exec("SELECT * FROM event_rows").toArray(),
    applied: sql.exec("SELECT * FROM schema_migrations").toArray(),
  }));
}

/** A list in which the object dies when a step is about to be taken. */
function dyingAt(step: number, die: () => void): Migration[] {
  return [...MIGRATIONS, ...LATER].map(({ id, sql }, position) => ({
    id,
    get sql() {
      if (position === step) die();
      return sql;
    },
  }));
}

it.each(LATER.map(({ id }, index) => ({ id, step: MIGRATIONS.length + index })))(
  "finishes after a restart what was broken off at the step $id, and has lost nothing",
  async ({ step }) => {
    const house = await newHouse();
    // Held, so that nothing moves by itself while rows are compared.
    for (const mode of ["queue", "queue", "replace"] as const) await submit(house, { mode, hold: true });
    const before = await kept(house);
    expect(before.jobs).toHaveLength(3);

    const broken = runInDurableObject(house.deployment, (_, state) =>
      migrate(
        state.storage,
        dyingAt(step, () => state.abort("killed in the middle of a migration")),
      ),
    );
    await expect(broken).rejects.toThrow("killed in the middle of a migration");
    // A stub whose object was killed stays broken.
    house.deployment = deploymentObject(env, house.namespace, "web");
    // The old schema is whole, and the old code goes on with it.
    expect(await kept(house)).toEqual(before);
    expect(ok(await house.deployment.read()).jobs).toHaveLength(3);

    await runInDurableObject(house.deployment, (_, { storage }) => migrate(storage, [...MIGRATIONS, ...LATER]));
    const after = await kept(house);
    expect(after.jobs).toEqual(before.jobs.map((row) => expect.objectContaining(row as object) as unknown));
    expect(after.events).toEqual(before.events);
    expect(after.applied.slice(0, MIGRATIONS.length)).toEqual(before.applied);
    expect(after.applied).toHaveLength(MIGRATIONS.length + LATER.length);
    await runInDurableObject(house.deployment, (_, { storage: { sql } }) => {
      expect(sql.exec("SELECT job, note FROM notes").toArray()).toEqual(
        sql.exec("SELECT id AS job, note FROM jobs").toArray(),
      );
    });
  },
);

it("takes all of a failing migration back, and starts with the one that was mended", async () => {
  const house = await newHouse();
  await submit(house, { hold: true });
  const before = await kept(house);
  const wrong: Migration = { id: "later-wrong", sql: "INSERT INTO nowhere VALUES (1);" };
  await runInDurableObject(house.deployment, (_, { storage }) => {
    expect(() => migrate(storage, [...MIGRATIONS, ...LATER, wrong])).toThrow("no such table");
  });
  expect(await kept(house)).toEqual(before);
  await evictDurableObject(house.deployment);
  expect(ok(await house.deployment.read()).jobs).toHaveLength(1);
});
