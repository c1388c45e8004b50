import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { type DeploymentView, type JobView, makeJobId } from "@plumule/protocol";
import { describe, expect, test } from "vitest";
import type { NamespaceCalls, PublishCall } from "../../durable-objects/namespace/calls.ts";
import {
  batchOf,
  bindings,
  deploymentOf,
  dumpTables,
  execute,
  granted,
  jobOf,
  openNamespace,
  readFeed,
} from "./namespace-fixtures.ts";

type JobsQuery = Parameters<NamespaceCalls["listJobs"]>[0];

const EVERYTHING = { state: null, deployment: null, commit: null, prefix: null };

/** Every job of a list, page by page. */
async function allJobs(
  calls: NamespaceCalls,
  filter: Partial<Pick<JobsQuery, "state" | "deployment" | "commit">>,
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
    await calls.publish(batchOf(web, [{ ...jobs[0]!, state: "succeeded" }], 3));
    expect(await calls.publish(first)).toEqual({ through: 4 });
    expect((await allJobs(calls, { state: "succeeded" }, 10)).jobs).toHaveLength(1);
    const told = [...jobs, jobs[0]!].map(({ id }) => `jobs/${id}`);
    expect((await readFeed(calls)).map(({ subject }) => subject)).toEqual(told);
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
