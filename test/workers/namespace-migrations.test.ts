import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { expect, test } from "vitest";
import { MIGRATIONS } from "../../durable-objects/namespace/migrations.ts";
import { migrate } from "../../durable-objects/shared/migrate.ts";
import { bindings, execute, freshName, granted, namespaceCalls, newSigner } from "./namespace-fixtures.ts";
import { COMMITS, post, REPOSITORY, RULE } from "./namespace-hook-fixtures.ts";

/** The schema before deliveries were ordered by ref. */
const BEFORE_ORDER = MIGRATIONS.findIndex(({ id }) => id === "delivery-order-and-status");

test("deliveries and hand-overs of a namespace from before are read, ordered among new ones, and handed over", async () => {
  const name = freshName();
  const key = await newSigner();
  const [one, two, three] = COMMITS;
  const push = {
    type: "push",
    audience: "x",
    repository: REPOSITORY,
    ref: "refs/heads/main",
    before: two,
    after: three,
  };
  await runInDurableObject(bindings.NAMESPACE.getByName(name), (_, { storage }) => {
    migrate(storage, MIGRATIONS, BEFORE_ORDER);
    storage.sql.exec("INSERT INTO namespace (id, created_at) VALUES (?, ?)", name, Date.now());
    storage.sql.exec(
      "INSERT INTO settings (name, version, body) VALUES ('triggers', 1, ?)",
      JSON.stringify({
        version: 1,
        triggers: [RULE],
        hooks: [{ id: "seed", keys: [key.did], secret: "s".repeat(24) }],
      }),
    );
    storage.sql.exec(
      `INSERT INTO deliveries (id, hook, signer, webhook_id, body_sha256, received_at, type, push, push_key, state, round, results)
       VALUES ('old', 'seed', ?, 'w', 'b', ?, 'push', ?, 'digest', 'accepted', 0, ?)`,
      key.did,
      Date.now(),
      JSON.stringify(push),
      JSON.stringify([{ trigger: "ci", deployment: "app-main", job: null, detail: "", pending: true }]),
    );
    storage.sql.exec(
      "INSERT INTO outbox (kind, payload, attempts, due_at) VALUES ('submit', ?, 0, 1)",
      JSON.stringify({
        delivery: "old",
        round: 0,
        trigger: "ci",
        hook: "seed",
        deployment: "app-main",
        body: { task: RULE.task, hold: true },
      }),
    );
  });
  // As a deploy does: the object begins anew, with the code of now.
  await evictDurableObject(bindings.NAMESPACE.getByName(name));
  const calls = namespaceCalls(name);
  const place = { name, calls, audience: `https://broker.test/v1/${name}`, key };
  expect(granted(await post(place, { before: one, after: two })).delivery.state).toBe("ignored");
  expect(granted(await post(place, { before: two, after: three })).delivery.state).toBe("duplicate");
  await runInDurableObject(bindings.NAMESPACE.getByName(name), (namespace) => namespace.alarm());
  expect(await execute(name, "SELECT * FROM outbox")).toEqual([]);
  const { items } = granted(await calls.listDeliveries({ cursor: null, limit: 10 }));
  expect(items.at(-1)).toMatchObject({ id: "old", state: "submitted", results: [{ detail: "submitted" }] });
  expect(granted(await calls.getTriggers()).hooks).toMatchObject([{ keys: [key.did], secrets: [{ name: "secret" }] }]);
});
