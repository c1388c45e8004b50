import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import {
  type DeploymentView,
  type Event,
  type JobView,
  LIMITS,
  makeJobId,
  namespaceSnapshotSchema,
  serverFrameSchema,
  type ServerFrame,
} from "@plumule/protocol";
import { describe, expect, test, vi } from "vitest";
import type { NamespaceCalls, PublishCall } from "../../durable-objects/namespace/calls.ts";
import { MIGRATIONS } from "../../durable-objects/namespace/migrations.ts";
import { migrate } from "../../durable-objects/shared/migrate.ts";
import {
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
} from "./namespace-fixtures.ts";

const EVERYTHING = { state: null, deployment: null, commit: null, prefix: null };

/** What a deployment says after these jobs changed, one event each. */
function batchOf(deployment: DeploymentView, jobs: JobView[], after: number): PublishCall {
  const events = jobs.map((job, at) => eventOf(deployment.namespace, deployment, job, after + at + 1));
  return { deployment, removed: false, jobs, events, after, through: after + events.length };
}

async function readFeed(calls: NamespaceCalls): Promise<Event[]> {
  return granted(await calls.history({ since: null, limit: 500, waitMs: 0 })).events;
}

async function allJobs(
  calls: NamespaceCalls,
  filter: Partial<typeof EVERYTHING> & { state?: JobView["state"] | null },
  limit: number,
): Promise<{ jobs: JobView[]; pages: number }> {
  const jobs: JobView[] = [];
  let pages = 0;
  let cursor: string | null = null;
  do {
    const page: { items: JobView[]; nextCursor: string | null } = granted(
      await calls.listJobs({ state: null, deployment: null, commit: null, ...filter, cursor, limit }),
    );
    jobs.push(...page.items);
    cursor = page.nextCursor;
    pages += 1;
  } while (cursor !== null);
  return { jobs, pages };
}

describe("the index", () => {
  test("follows its deployments and survives an eviction", async () => {
    const { name, calls } = await openNamespace();
    const web = deploymentOf(name, "web");
    const job = jobOf(name, "web", { source: { repository: "https://git.test/a", commit: "a".repeat(40) } });
    expect(await calls.publish(batchOf(web, [job], 0))).toEqual({ through: 1 });
    const done = { ...job, state: "succeeded" as const };
    expect(await calls.publish(batchOf({ ...web, state: "active" }, [{ ...job, state: "running" }, done], 1))).toEqual({
      through: 3,
    });
    await evictDurableObject(bindings.NAMESPACE.getByName(name));
    expect(granted(await calls.listDeployments({ ...EVERYTHING, cursor: null, limit: 10 })).items).toEqual([
      { ...web, state: "active" },
    ]);
    expect((await allJobs(calls, {}, 10)).jobs).toEqual([done]);
    expect((await allJobs(calls, { commit: "a".repeat(40) }, 10)).jobs).toEqual([done]);
    expect((await allJobs(calls, { commit: "b".repeat(40) }, 10)).jobs).toEqual([]);
    expect(await calls.locate(job.id)).toBe("web");
  });

  test("gives every event a number of its own and keeps who, when and where from", async () => {
    const { name, calls } = await openNamespace();
    const [web, api] = [deploymentOf(name, "web"), deploymentOf(name, "api")];
    const jobs = [jobOf(name, "web"), jobOf(name, "api", { actor: "hook:seed" }), jobOf(name, "web")];
    await calls.publish(batchOf(web, [jobs[0]!], 0));
    await calls.publish(batchOf(api, [jobs[1]!], 0));
    await calls.publish(batchOf(web, [jobs[2]!], 1));
    const events = await readFeed(calls);
    expect(events.map(({ sequence }) => Number(sequence))).toEqual([1, 2, 3]);
    expect(events[1]).toMatchObject({
      source: `/${name}`,
      type: "job.queued",
      subject: `jobs/${jobs[1]!.id}`,
      actor: "hook:seed",
      time: "2026-01-02T03:04:05.006Z",
      data: {
        job: jobs[1],
        deployment: api,
        origin: { source: `/${name}/deployments/api`, sequence: "0000000000000001" },
      },
    });
  });

  test("takes a repeated batch once, and of an overlapping one what is new", async () => {
    const { name, calls } = await openNamespace();
    const web = deploymentOf(name, "web");
    const jobs = [jobOf(name, "web"), jobOf(name, "web"), jobOf(name, "web")];
    const first = batchOf(web, jobs.slice(0, 2), 0);
    await calls.publish(first);
    const before = await dumpTables(name);
    expect(await calls.publish(first)).toEqual({ through: 2 });
    expect(await dumpTables(name)).toEqual(before);
    expect(await calls.publish(batchOf(web, jobs, 0))).toEqual({ through: 3 });
    expect((await readFeed(calls)).map(({ subject }) => subject)).toEqual(jobs.map(({ id }) => `jobs/${id}`));
  });

  test("writes few rows: one per deployment, job and batch, and two index entries for a new job", async () => {
    const { name, calls } = await openNamespace();
    const web = deploymentOf(name, "web");
    const job = jobOf(name, "web", { source: { repository: "https://git.test/a", commit: "a".repeat(40) } });
    await calls.publish(batchOf(web, [jobOf(name, "web")], 0));
    const written = (call: PublishCall): Promise<number> =>
      runInDurableObject(bindings.NAMESPACE.getByName(name), async (namespace, { storage }) => {
        const before = storage.sql.exec<{ changes: number }>("SELECT total_changes() AS changes").one().changes;
        await namespace.publish(call);
        return storage.sql.exec<{ changes: number }>("SELECT total_changes() AS changes").one().changes - before;
      });
    // `total_changes` counts rows, not index entries; nothing of an update touches an indexed column.
    expect(await written(batchOf(web, [job], 1))).toBe(3);
    expect(
      await written(
        batchOf(
          web,
          [
            { ...job, state: "running" },
            { ...job, state: "succeeded" },
          ],
          2,
        ),
      ),
    ).toBe(4);
  });

  test("hides a removed deployment, takes no late batch of it, and takes the one that is made anew", async () => {
    const { name, calls } = await openNamespace();
    const web = deploymentOf(name, "web", { createdAt: "2026-01-01T00:00:00.000Z" });
    const [job, next] = [jobOf(name, "web"), jobOf(name, "web")];
    const last = { ...batchOf(web, [job], 0), removed: true };
    await calls.publish(last);
    await calls.publish(last);
    expect(granted(await calls.listDeployments({ ...EVERYTHING, cursor: null, limit: 10 })).items).toEqual([]);
    expect(await readFeed(calls)).toHaveLength(1);
    await calls.publish(batchOf({ ...web, createdAt: "2026-02-01T00:00:00.000Z" }, [next], 0));
    expect(granted(await calls.listDeployments({ ...EVERYTHING, cursor: null, limit: 10 })).items).toHaveLength(1);
    expect(await readFeed(calls)).toHaveLength(2);
  });

  test("takes nothing of another namespace, and shows nothing to another", async () => {
    const [one, other] = [await openNamespace(), await openNamespace()];
    const job = jobOf(one.name, "web");
    await one.calls.publish(batchOf(deploymentOf(one.name, "web"), [job], 0));
    expect(granted(await other.calls.listDeployments({ ...EVERYTHING, cursor: null, limit: 10 })).items).toEqual([]);
    expect((await allJobs(other.calls, {}, 10)).jobs).toEqual([]);
    expect(await other.calls.locate(job.id.replace(/^......../, "01890000"))).toBeNull();
    expect(await readFeed(other.calls)).toEqual([]);
    const before = await dumpTables(other.name);
    await runInDurableObject(bindings.NAMESPACE.getByName(other.name), async (namespace) => {
      await expect(namespace.publish(batchOf(deploymentOf(one.name, "web"), [job], 0))).rejects.toThrow(
        "was published to",
      );
    });
    expect(await dumpTables(other.name)).toEqual(before);
    expect(JSON.stringify(before)).not.toContain(one.name);
  });
});

describe("lists", () => {
  test("of jobs are newest first, filtered, and whole over pages while new ones come", async () => {
    const { name, calls } = await openNamespace();
    const jobs = Array.from({ length: 30 }, (_, at) =>
      jobOf(name, at % 3 === 0 ? "web" : "api", {
        id: makeJobId(Date.now() - 1_000 + at, new Uint8Array(8)),
        state: at % 2 === 0 ? "failed" : "queued",
      }),
    );
    await calls.publish(
      batchOf(
        deploymentOf(name, "web"),
        jobs.filter(({ deployment }) => deployment === "web"),
        0,
      ),
    );
    await calls.publish(
      batchOf(
        deploymentOf(name, "api"),
        jobs.filter(({ deployment }) => deployment === "api"),
        0,
      ),
    );
    const newest = jobs.toReversed();
    const ids = (some: JobView[]): string[] => some.map(({ id }) => id);
    expect(ids((await allJobs(calls, {}, 7)).jobs)).toEqual(ids(newest));
    expect(ids((await allJobs(calls, { deployment: "web" }, 4)).jobs)).toEqual(
      ids(newest.filter(({ deployment }) => deployment === "web")),
    );
    expect(ids((await allJobs(calls, { state: "failed" }, 4)).jobs)).toEqual(
      ids(newest.filter(({ state }) => state === "failed")),
    );
    expect(ids((await allJobs(calls, { state: "failed", deployment: "api" }, 4)).jobs)).toEqual(
      ids(newest.filter(({ state, deployment }) => state === "failed" && deployment === "api")),
    );
    const { items, nextCursor } = granted(await calls.listJobs({ ...EVERYTHING, cursor: null, limit: 15 }));
    await calls.publish(
      batchOf(
        deploymentOf(name, "web"),
        [jobOf(name, "web", { id: makeJobId(Date.now() + 5_000, new Uint8Array(8)) })],
        10,
      ),
    );
    const rest = granted(await calls.listJobs({ ...EVERYTHING, cursor: nextCursor, limit: 15 }));
    expect(ids([...items, ...rest.items])).toEqual(ids(newest));
    expect(rest.nextCursor).toBeNull();
    expect(await calls.listJobs({ ...EVERYTHING, cursor: "e1:1", limit: 1 })).toMatchObject({
      refused: "invalid-cursor",
    });
  });

  test("of jobs in a rare state walk a bounded way per page and find it all the same", async () => {
    const { name, calls } = await openNamespace();
    await execute(
      name,
      `INSERT INTO jobs SELECT printf('01890000-0000-7000-8000-%012x', value), 'web', NULL, iif(value = 7, 'failed', 'succeeded'), '{"id":"' || value || '"}'
       FROM (WITH RECURSIVE n(value) AS (SELECT 0 UNION ALL SELECT value + 1 FROM n WHERE value < 20499) SELECT value FROM n)`,
    );
    const { jobs, pages } = await allJobs(calls, { state: "failed" }, 10);
    expect(jobs).toEqual([{ id: "7" }]);
    expect(pages).toBe(3);
  });

  test("of deployments go by id, with prefix and state", async () => {
    const { name, calls } = await openNamespace();
    const names = ["a", "app", "app-1", "app.2", "app_3", "apx", "b"];
    for (const id of names)
      await calls.publish(
        batchOf(deploymentOf(name, id, { state: id === "app-1" ? "active" : "idle" }), [jobOf(name, id)], 0),
      );
    const list = async (query: { state?: string; prefix?: string }, limit: number): Promise<string[]> => {
      const seen: string[] = [];
      let cursor: string | null = null;
      do {
        const page: { items: DeploymentView[]; nextCursor: string | null } = granted(
          await calls.listDeployments({ state: query.state ?? null, prefix: query.prefix ?? null, cursor, limit }),
        );
        seen.push(...page.items.map(({ id }) => id));
        cursor = page.nextCursor;
      } while (cursor !== null);
      return seen;
    };
    expect(await list({}, 2)).toEqual(names.toSorted());
    expect(await list({ prefix: "app" }, 3)).toEqual(["app", "app-1", "app.2", "app_3"]);
    expect(await list({ prefix: "app", state: "active" }, 3)).toEqual(["app-1"]);
    expect(await list({ prefix: "%" }, 3)).toEqual([]);
  });
});

describe("locate", () => {
  test("waits for a young job until its deployment has told of it", async () => {
    const { name, calls } = await openNamespace();
    const job = jobOf(name, "web");
    const both = [calls.locate(job.id), calls.locate(job.id)];
    await scheduler.wait(50);
    await calls.publish(batchOf(deploymentOf(name, "web"), [job], 0));
    expect(await Promise.all(both)).toEqual(["web", "web"]);
  });

  test("gives up on a young job after two seconds, and on an old one at once", async () => {
    const { name, calls } = await openNamespace();
    const started = performance.now();
    expect(await calls.locate(makeJobId(Date.now() - 60_000, new Uint8Array(8)))).toBeNull();
    const soon = performance.now() - started;
    expect(await calls.locate(jobOf(name, "web").id)).toBeNull();
    expect(soon).toBeLessThan(1_000);
    expect(performance.now() - started).toBeGreaterThan(1_900);
    expect(performance.now() - started).toBeLessThan(4_000);
  });
});

describe("the feed", () => {
  /** A socket of the namespace with the frames that it has got. */
  async function watch(
    name: string,
  ): Promise<{
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
    socket.addEventListener("message", ({ data }) => frames.push(serverFrameSchema.parse(JSON.parse(data as string))));
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
      `INSERT INTO deliveries SELECT value, 'id' || value, 'h', 's', 'w', 'b', iif(value <= 600, ${old}, ${now}), 'push', NULL, NULL, 'ignored', 0, '[]' FROM ${numbers(LIMITS.deliveriesKept + 1_000)}`,
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
