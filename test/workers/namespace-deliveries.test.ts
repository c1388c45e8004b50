import { runInDurableObject } from "cloudflare:test";
import type { DeliveryView } from "@plumule/protocol";
import { describe, expect, test, vi } from "vitest";
import { deploymentObject } from "../../durable-objects/shared/names.ts";
import { bindings, execute, granted } from "./namespace-fixtures.ts";
import { COMMITS, openHooks, post, REPOSITORY, RULE, settled } from "./namespace-hook-fixtures.ts";

describe("the job of a delivery", () => {
  test("is the deployment's, about the pushed commit, and appears in the index by itself", async () => {
    const place = await openHooks();
    const { delivery } = granted(await post(place, { message: "Fix the roof\n\nIt leaked." }));
    const { results } = await settled(place.calls, delivery.id);
    const snapshot = granted(await deploymentObject(bindings, place.name, "app-main").read());
    expect(snapshot.jobs).toMatchObject([
      {
        id: results[0]?.job,
        state: "held",
        actor: "hook:seed",
        summary: "Fix the roof",
        source: { repository: REPOSITORY, commit: COMMITS[1], ref: "refs/heads/main" },
      },
    ]);
    await vi.waitFor(async () => {
      const { items } = granted(
        await place.calls.listJobs({ state: "held", deployment: null, commit: COMMITS[1], cursor: null, limit: 10 }),
      );
      expect(items.map(({ id }) => id)).toEqual([results[0]?.job]);
    }, 5_000);
    expect(await place.calls.locate(results[0]?.job ?? "")).toBe("app-main");
  });

  test("is one job when it is handed over twice", async () => {
    const place = await openHooks();
    await execute(place.name, "CREATE TABLE kept (kind TEXT, payload TEXT)");
    await execute(
      place.name,
      "CREATE TRIGGER keep AFTER INSERT ON outbox BEGIN INSERT INTO kept VALUES (new.kind, new.payload); END",
    );
    const { delivery } = granted(await post(place));
    const { results } = await settled(place.calls, delivery.id);
    await execute(place.name, "DROP TRIGGER keep");
    await execute(
      place.name,
      "INSERT INTO outbox (kind, payload, attempts, due_at) SELECT kind, payload, 0, ? FROM kept",
      Date.now(),
    );
    await runInDurableObject(bindings.NAMESPACE.getByName(place.name), (namespace) => namespace.alarm());
    expect(await execute(place.name, "SELECT * FROM outbox")).toEqual([]);
    const { jobs } = granted(await deploymentObject(bindings, place.name, "app-main").read());
    expect(jobs.map(({ id }) => id)).toEqual([results[0]?.job]);
    expect((await settled(place.calls, delivery.id)).results).toEqual(results);
  });
});

describe("the same push", () => {
  test("seen by three seeds makes one job", async () => {
    const place = await openHooks();
    const first = granted(await post(place)).delivery;
    const copies = [granted(await post(place)).delivery, granted(await post(place, { before: null })).delivery];
    expect(copies).toMatchObject([{ state: "duplicate" }, { state: "duplicate" }]);
    expect(copies[0]?.results[0]?.detail).toContain(first.id);
    expect((await settled(place.calls, first.id)).state).toBe("submitted");
  });

  test("after the ref has moved away and back is another push", async () => {
    const place = await openHooks();
    const [one, two, three] = COMMITS;
    const states: string[] = [];
    for (const change of [
      { before: one, after: two },
      { before: two, after: three },
      { before: three, after: two },
      { before: three, after: two },
      { before: one, after: two },
    ])
      states.push(granted(await post(place, change)).delivery.state);
    expect(states).toEqual(["accepted", "accepted", "accepted", "duplicate", "duplicate"]);
  });

  test("to another ref or repository is another push", async () => {
    const place = await openHooks();
    granted(await post(place));
    expect(granted(await post(place, { ref: "refs/heads/next" })).delivery.state).toBe("accepted");
    expect(granted(await post(place, { repository: "rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5" })).delivery.state).toBe(
      "accepted",
    );
  });
});

describe("deliveries", () => {
  test("are listed newest first, by pages", async () => {
    const place = await openHooks([]);
    const ids: string[] = [];
    for (let at = 0; at < 5; at += 1) ids.push(granted(await post(place, { ref: `refs/heads/b${at}` })).delivery.id);
    const seen: string[] = [];
    let cursor: string | null = null;
    do {
      const page: { items: DeliveryView[]; nextCursor: string | null } = granted(
        await place.calls.listDeliveries({ cursor, limit: 2 }),
      );
      seen.push(...page.items.map(({ id }) => id));
      cursor = page.nextCursor;
    } while (cursor !== null);
    expect(seen).toEqual(ids.toReversed());
    expect(await place.calls.listDeliveries({ cursor: "e1:1", limit: 2 })).toMatchObject({ refused: "invalid-cursor" });
  });

  test("are handled again by the rules of now, as a new job", async () => {
    const place = await openHooks([{ ...RULE, refs: ["refs/tags/*"] }]);
    const { delivery } = granted(await post(place));
    expect(delivery.state).toBe("ignored");
    await place.calls.putTriggers({ actor: "admin", body: { triggers: [RULE], hooks: [] }, ifMatch: `"v1"` });
    const jobs: (string | null | undefined)[] = [];
    for (let round = 0; round < 2; round += 1) {
      expect(await place.calls.redeliver({ actor: "token:op", id: delivery.id })).toMatchObject({ state: "accepted" });
      jobs.push((await settled(place.calls, delivery.id)).results[0]?.job);
    }
    expect(new Set(jobs).size).toBe(2);
    expect(jobs).not.toContain(null);
    expect(await place.calls.redeliver({ actor: "token:op", id: crypto.randomUUID() })).toMatchObject({
      refused: "not-found",
    });
  });

  test("are not handled again while their jobs are on their way", async () => {
    const place = await openHooks();
    const { delivery } = granted(await post(place));
    await settled(place.calls, delivery.id);
    const answers = await runInDurableObject(bindings.NAMESPACE.getByName(place.name), (namespace) =>
      Promise.all([1, 2].map(() => namespace.redeliver({ actor: "token:op", id: delivery.id }))),
    );
    expect(answers).toMatchObject([{ state: "accepted" }, { refused: "wrong-state" }]);
  });

  test("whose job is refused say so", async () => {
    const place = await openHooks([{ ...RULE, mode: "reject" }]);
    const first = granted(await post(place)).delivery;
    await settled(place.calls, first.id);
    const { delivery } = granted(await post(place, { before: COMMITS[1], after: COMMITS[2] }));
    const done = await settled(place.calls, delivery.id);
    expect(done).toMatchObject({ state: "failed", results: [{ trigger: "ci", deployment: "app-main", job: null }] });
    expect(done.results[0]?.detail).toContain("refused (busy)");
  });

  test("of one namespace are not seen in another", async () => {
    const [one, other] = [await openHooks(), await openHooks()];
    const { delivery } = granted(await post(one));
    expect(granted(await other.calls.listDeliveries({ cursor: null, limit: 10 })).items).toEqual([]);
    expect(await other.calls.redeliver({ actor: "admin", id: delivery.id })).toMatchObject({ refused: "not-found" });
    // The same key is not trusted there, and the same body is for another namespace.
    expect(await post({ ...other, key: one.key })).toMatchObject({ refused: "bad-signature" });
  });
});
