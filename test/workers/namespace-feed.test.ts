import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { LIMITS, namespaceSnapshotSchema, serverFrameSchema, type ServerFrame } from "@plumule/protocol";
import { describe, expect, test, vi } from "vitest";
import { MIGRATIONS } from "../../durable-objects/namespace/migrations.ts";
import { migrate } from "../../durable-objects/shared/migrate.ts";
import {
  batchOf,
  bindings,
  deploymentOf,
  dumpTables,
  eventOf,
  execute,
  freshName,
  granted,
  jobOf,
  namespaceCalls,
  openNamespace,
  readFeed,
} from "./namespace-fixtures.ts";

describe("the feed", () => {
  /** A socket of the namespace with the frames that it has got. */
  async function watch(name: string): Promise<{
    send: (frame: unknown) => void;
    until: (op: ServerFrame["op"]) => Promise<ServerFrame>;
    frames: ServerFrame[];
    close: () => void;
  }> {
    const response = await bindings.NAMESPACE.getByName(name).fetch("https://broker.test/", {
      headers: { upgrade: "websocket", "sec-websocket-protocol": "plumule.v1" },
    });
    const socket = response.webSocket!;
    const frames: ServerFrame[] = [];
    socket.accept();
    socket.addEventListener("message", ({ data }) => {
      frames.push(serverFrameSchema.parse(JSON.parse(data as string)));
    });
    const until = (op: ServerFrame["op"]): Promise<ServerFrame> =>
      vi.waitFor(() => {
        const found = frames.find((frame) => frame.op === op);
        if (found === undefined) throw new Error(`no ${op} among ${frames.map((frame) => frame.op).join(", ")}`);
        return found;
      }, 5_000);
    return { send: (frame) => socket.send(JSON.stringify(frame)), until, frames, close: () => socket.close(1000) };
  }

  const sequences = (frames: readonly ServerFrame[]): number[] =>
    frames.flatMap((frame) => (frame.op === "events" ? frame.events.map(({ sequence }) => Number(sequence)) : []));

  test("starts a watcher from a snapshot and goes on live, past an eviction", async () => {
    const { name, calls } = await openNamespace();
    const web = deploymentOf(name, "web");
    const [job, next] = [jobOf(name, "web"), jobOf(name, "web")];
    await calls.publish(batchOf(web, [job], 0));
    const watcher = await watch(name);
    watcher.send({ op: "subscribe", id: "all" });
    const snapshot = await watcher.until("snapshot");
    expect(namespaceSnapshotSchema.parse(snapshot.op === "snapshot" && snapshot.state)).toMatchObject({
      deployments: [web],
      jobs: [job],
    });
    await watcher.until("live");
    await evictDurableObject(bindings.NAMESPACE.getByName(name));
    await calls.publish(batchOf(web, [next], 1));
    const events = await watcher.until("events");
    expect(events.op === "events" && events.events.map(({ subject }) => subject)).toEqual([`jobs/${next.id}`]);
    watcher.close();
  });

  test("resumes a cursor with what was missed, once and in order, by socket and by page", async () => {
    const { name, calls } = await openNamespace();
    const web = deploymentOf(name, "web");
    const jobs = Array.from({ length: 6 }, () => jobOf(name, "web"));
    await calls.publish(batchOf(web, jobs.slice(0, 2), 0));
    const { cursor } = granted(await calls.history({ since: null, limit: 10, waitMs: 0 }));
    await calls.publish(batchOf(web, jobs.slice(2, 4), 2));
    await calls.revokeToken({
      actor: "admin",
      id: granted(await calls.createToken({ actor: "admin", body: { name: "x", scopes: ["read"] } })).id,
    });
    await calls.publish(batchOf(web, jobs.slice(4), 4));
    const watcher = await watch(name);
    watcher.send({ op: "subscribe", id: "all", since: cursor });
    expect(await watcher.until("live")).toMatchObject({ recovered: true, replayed: 6 });
    expect(sequences(watcher.frames)).toEqual([3, 4, 5, 6, 7, 8]);
    watcher.close();
    expect(
      granted(await calls.history({ since: cursor, limit: 10, waitMs: 0 })).events.map(({ type }) => type),
    ).toEqual(["job.queued", "job.queued", "token.created", "token.revoked", "job.queued", "job.queued"]);
    expect(await calls.history({ since: "e1:999999", limit: 10, waitMs: 0 })).toMatchObject({
      refused: expect.stringMatching(/invalid-cursor|cursor-expired/),
    });
  });

  test("holds a reader back until something happens", async () => {
    const { name, calls } = await openNamespace();
    const { cursor } = granted(await calls.history({ since: null, limit: 10, waitMs: 0 }));
    const waiting = calls.history({ since: cursor, limit: 10, waitMs: 5_000 });
    await scheduler.wait(50);
    await calls.publish(batchOf(deploymentOf(name, "web"), [jobOf(name, "web")], 0));
    expect(granted(await waiting).events).toHaveLength(1);
  });
});

describe("what waits to be handed over", () => {
  test("is handed over by the alarm when the object was evicted before", async () => {
    const { name } = await openNamespace();
    const runner = `did:key:z6Mk${"k".repeat(44)}`;
    await execute(
      name,
      "INSERT INTO outbox (kind, payload, attempts, due_at) VALUES ('runner', ?, 0, ?)",
      JSON.stringify({ runner, pool: "default" }),
      Date.now(),
    );
    await evictDurableObject(bindings.NAMESPACE.getByName(name));
    await namespaceCalls(name).isOpen();
    await vi.waitFor(async () => expect((await dumpTables(name))["outbox"]).toEqual([]), 5_000);
  });

  test("is tried later and later, then rests until the object comes to life again", async () => {
    const { name } = await openNamespace();
    const started = Date.now();
    await execute(
      name,
      "INSERT INTO outbox (kind, payload, attempts, due_at) VALUES ('of tomorrow', '{}', 0, ?)",
      started + 3600_000,
    );
    const stub = bindings.NAMESPACE.getByName(name);
    const row = async (): Promise<{ attempts: number; due_at: number }> =>
      (await execute(name, "SELECT attempts, due_at FROM outbox"))[0] as { attempts: number; due_at: number };
    vi.useFakeTimers({ toFake: ["Date"], now: started });
    try {
      const waits: number[] = [];
      for (let attempt = 1; attempt <= LIMITS.outboxAttempts; attempt += 1) {
        const due = (await row()).due_at;
        vi.setSystemTime(due);
        await runInDurableObject(stub, (namespace) => namespace.alarm());
        waits.push((await row()).due_at - due);
      }
      expect(waits).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000]);
      vi.setSystemTime((await row()).due_at);
      await runInDurableObject(stub, (namespace) => namespace.alarm());
      expect((await row()).attempts).toBe(LIMITS.outboxAttempts);
    } finally {
      vi.useRealTimers();
    }
    await evictDurableObject(stub);
    expect((await row()).attempts).toBe(0);
  });
});

describe("retention", () => {
  test("keeps the newest jobs, every delivery of the dedupe window, and no tombstone for ever, in steps", async () => {
    const { name, calls } = await openNamespace();
    const numbers = (count: number): string =>
      `(WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < ${count}) SELECT value FROM n)`;
    const now = Date.now();
    const old = now - LIMITS.deliveryDedupeMs - 1;
    await execute(
      name,
      `INSERT INTO jobs SELECT printf('01890000-0000-7000-8000-%012x', value), 'web', NULL, 'failed', '{}' FROM ${numbers(LIMITS.jobsIndexed + 700)}`,
    );
    await execute(
      name,
      `INSERT INTO deliveries SELECT value, 'id' || value, 'h', 's', 'w', 'b', iif(value <= 600, ${old}, ${now}), 'push', NULL, NULL, 'ignored', 0, '[]', NULL FROM ${numbers(LIMITS.deliveriesKept + 1_000)}`,
    );
    await calls.publish({
      ...batchOf(deploymentOf(name, "web", { updatedAt: new Date(old).toISOString() }), [], 0),
      removed: true,
      through: 1,
    });
    const count = async (table: string): Promise<number> =>
      ((await execute(name, `SELECT count(*) AS count FROM ${table}`))[0] as { count: number }).count;
    const stub = bindings.NAMESPACE.getByName(name);
    const step = async (): Promise<boolean> => {
      await execute(name, "UPDATE namespace SET sweep_at = 1 WHERE sweep_at IS NOT NULL");
      return runDurableObjectAlarm(stub);
    };
    await step();
    expect([await count("jobs"), await count("deliveries"), await count("deployments")]).toEqual([
      LIMITS.jobsIndexed + 200,
      LIMITS.deliveriesKept + 500,
      0,
    ]);
    await step();
    // 600 were old enough; the others are still needed to know their copies.
    expect([await count("jobs"), await count("deliveries")]).toEqual([LIMITS.jobsIndexed, LIMITS.deliveriesKept + 400]);
    expect((await execute(name, "SELECT sweep_at FROM namespace"))[0]).toEqual({ sweep_at: null });
    expect(await step()).toBe(false);
  });
});

test("data of every earlier schema is brought up to date and still right", async () => {
  for (let version = 1; version <= MIGRATIONS.length; version += 1) {
    const name = freshName();
    const stub = bindings.NAMESPACE.getByName(name);
    await runInDurableObject(stub, (_, { storage }) => {
      migrate(storage, MIGRATIONS, version);
      storage.sql.exec(
        "INSERT INTO event_rows (first, last, events) VALUES (1, 1, ?)",
        JSON.stringify([{ ...eventOf(name, deploymentOf(name, "web"), jobOf(name, "web"), 1), source: `/${name}` }]),
      );
      if (version >= 2) storage.sql.exec("INSERT INTO namespace (id, created_at) VALUES (?, 1000)", name);
    });
    await evictDurableObject(stub);
    expect(await namespaceCalls(name).isOpen()).toBe(version >= 2);
    const { createdAt } = await namespaceCalls(name).open({ id: name });
    if (version >= 2) expect(createdAt).toBe("1970-01-01T00:00:01.000Z");
    const calls = namespaceCalls(name);
    await calls.publish(batchOf(deploymentOf(name, "web"), [jobOf(name, "web")], 0));
    expect((await readFeed(calls)).map(({ sequence }) => Number(sequence))).toEqual([1, 2]);
  }
});
