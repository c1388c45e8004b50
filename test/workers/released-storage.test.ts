import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import {
  type Assignment,
  isFinalJobState,
  type JobDetail,
  jobDetailSchema,
  listJobs,
  signerFromSeed,
  type SubmitAnswer,
} from "@plumule/protocol";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { Store } from "../../durable-objects/deployment/store.ts";
import { deploymentObject, namespaceObject, poolObject } from "../../durable-objects/shared/names.ts";
import { type Deployment, type House, ok, Runner } from "./deployment-harness.ts";
import { ask, told } from "./edge-harness.ts";

type About = {
  recordedAt: number;
  namespace: string;
  token: string;
  jobs: Record<string, string>;
  idempotency: { key: string; body: unknown };
  seeds: Record<string, string>;
  assignments: Record<string, Assignment & { recordedWith: string }>;
};

/** What `scripts/record-storage.mjs` has recorded of each release. */
const dumps = import.meta.glob<string>("../fixtures/storage/*/*.sql", {
  query: "?raw",
  import: "default",
  eager: true,
});
const abouts = import.meta.glob<About>("../fixtures/storage/*/about.json", { import: "default", eager: true });
const releases = Object.entries(abouts).map(([path, about]) => ({ release: path.split("/").at(-2) ?? "", about }));

const bytesOf = (hex: string): Uint8Array =>
  Uint8Array.from(hex.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));

type Stub = Parameters<typeof evictDurableObject>[0];
type Rows = Record<string, Record<string, unknown>[]>;

function rowsOf(sql: SqlStorage): Rows {
  const names = sql
    .exec<{ name: string }>(
      "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_cf%' ESCAPE '\\'",
    )
    .toArray();
  return Object.fromEntries(names.map(({ name }) => [name, sql.exec(`SELECT * FROM "${name}"`).toArray()]));
}

/** Puts a recorded database into an object, and takes the object out of memory: the next call starts today's code on it. */
async function load(stub: Stub, dump: string): Promise<Rows> {
  const rows = await runInDurableObject(stub, async (_, { storage }) => {
    await storage.deleteAll();
    storage.sql.exec(dump);
    return rowsOf(storage.sql);
  });
  await evictDurableObject(stub);
  return rows;
}

describe.each(releases)("the storage of $release", ({ release, about }) => {
  const { namespace, token, jobs, assignments } = about;
  const dumpOf = (name: string): string => dumps[`../fixtures/storage/${release}/${name}.sql`] ?? "";
  const lanes = Object.keys(dumps)
    .filter((path) => path.includes(`/${release}/deployment-`))
    .map((path) => path.replace(/^.*\/deployment-(.*)\.sql$/, "$1"));
  const lane = (id: string): Deployment => deploymentObject(env, namespace, id);
  const houseOf = (id: string): House => ({
    namespace,
    deployment: lane(id),
    pool: poolObject(env, namespace, "default"),
  });
  const detail = async (name: string): Promise<JobDetail> =>
    jobDetailSchema.parse(await told(ask("GET", `/v1/${namespace}/jobs/${jobs[name] ?? ""}`, { token }), 200));
  const stateOf = async (name: string): Promise<string> => (await detail(name)).job.state;
  const given = (name: string): Assignment & { recordedWith: string } => assignments[jobs[name] ?? ""] as never;
  const runnerOf = async (name: string, id: string): Promise<Runner> =>
    new Runner(houseOf(id), await signerFromSeed(bytesOf(about.seeds[name] ?? "")), [name]);
  /** Takes the job that waits in a lane, as a runner with a label, and ends it well. */
  const workOff = async (id: string, label: string): Promise<string> => {
    const runner = await Runner.in(houseOf(id), [label]);
    const assignment = await runner.start();
    ok(await runner.finish(assignment, "succeeded", "done\n"));
    return assignment.job;
  };
  const before: Record<string, Rows> = {};
  const after: Record<string, Rows> = {};

  beforeAll(async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: about.recordedAt + 1_000 });
    const stubs: Record<string, Stub> = {
      namespace: namespaceObject(env, namespace),
      pool: poolObject(env, namespace, "default"),
      ...Object.fromEntries(lanes.map((id) => [`deployment-${id}`, lane(id) as unknown as Stub])),
    };
    for (const [name, stub] of Object.entries(stubs)) before[name] = await load(stub, dumpOf(name));
    for (const [name, stub] of Object.entries(stubs))
      after[name] = await runInDurableObject(stub, (_, { storage }) => rowsOf(storage.sql));
  });
  afterAll(() => vi.useRealTimers());

  it("is there row by row when today's code has started on it", () => {
    expect(Object.keys(before).length).toBeGreaterThan(7);
    for (const [name, tables] of Object.entries(before)) {
      expect(Object.values(tables).flat().length, name).toBeGreaterThan(2);
      for (const [table, rows] of Object.entries(tables))
        expect(after[name]?.[table], `${name}: ${table}`).toEqual(
          table === "schema_migrations"
            ? expect.arrayContaining(rows)
            : rows.map((row) => expect.objectContaining(row) as unknown),
        );
    }
  });

  it("has records that are as complete as new ones", async () => {
    const fieldsOf = (id: string): Promise<Record<string, string[]>> =>
      runInDurableObject(lane(id) as unknown as Stub, (_, { storage }) => {
        const store = new Store(storage.sql);
        const state = store.load(namespace, id);
        const all = [...state.jobs, ...store.finalJobs(100)];
        const named = (records: readonly object[]): string[] =>
          [...new Set(records.flatMap((one) => Object.keys(one)))].toSorted();
        const common = (records: readonly object[]): string[] =>
          named(records).filter((key) => records.every((one) => key in one));
        return { lane: named([state.lane]), jobs: common(all), runs: common(all.flatMap(({ runs }) => runs)) };
      });
    const fresh = houseOf("fresh");
    ok(
      await fresh.deployment.submit({
        actor: "token:test",
        body: { task: { kind: "shell", script: "true" }, requires: { labels: ["fresh"] } },
        guard: { idempotencyKey: null, bodySha256: "", ifMatch: null },
        dryRun: false,
      }),
    );
    await workOff("fresh", "fresh");
    expect(await fieldsOf("running")).toEqual(await fieldsOf("fresh"));
  });

  it("answers the same as before, and the same key gets the same answer", async () => {
    for (const state of [
      "succeeded",
      "failed",
      "superseded",
      "cancelled",
      "running",
      "queued",
      "held",
      "assigned",
      "cancelling",
    ])
      expect(await stateOf(state), state).toBe(state);
    const { runs } = await detail("succeeded");
    expect(runs[0]).toMatchObject({ statementCount: 1, log: { state: "complete", bytes: 8 } });
    const log = await ask("GET", `/v1/${namespace}/runs/${runs[0]?.id ?? ""}/log`, { token });
    expect(await log.text()).toBe("one\ntwo\n");
    const { key, body } = about.idempotency;
    const again = ask("POST", `/v1/${namespace}/deployments/running/jobs`, {
      token,
      body,
      headers: { "idempotency-key": key, "content-type": "application/json" },
    });
    expect((await told<SubmitAnswer>(again, 202)).job.id).toBe(jobs["queued"]);
    const { triggers } = await told<{ triggers: { name: string }[] }>(
      ask("GET", `/v1/${namespace}/triggers`, { token }),
      200,
    );
    expect(triggers).toMatchObject([{ name: "ci" }]);
  });

  it("tells the namespace what it had not been told", async () => {
    await lane("untold").read();
    const listed = async (): Promise<string[]> =>
      listJobs.answers[200]
        .parse(await told(ask("GET", `/v1/${namespace}/jobs?limit=200`, { token }), 200))
        .items.map(({ id }) => id);
    await expect.poll(listed, { timeout: 5_000 }).toEqual(expect.arrayContaining(Object.values(jobs)));
  });

  it("lets every job go on to its end", async () => {
    const running = given("running");
    const king = await runnerOf("king", "running");
    ok(await king.beat(running));
    ok(await king.finish(running, "succeeded", "begun\nended\n"));
    expect(await workOff("running", "king")).toBe(jobs["queued"]);
    ok(await lane("running").approve({ actor: "token:test", job: jobs["held"] ?? "", commit: null }));
    expect(await workOff("running", "king")).toBe(jobs["held"]);
    const mute = await runnerOf("mute", "assigned");
    ok(await mute.beat(given("assigned")));
    ok(await mute.finish(given("assigned")));
    const deaf = await runnerOf("deaf", "cancelling");
    expect(ok(await deaf.beat(given("cancelling")))).toMatchObject({ command: { kind: "cancel" } });
    ok(await deaf.finish(given("cancelling"), "cancelled"));
    const late = await runnerOf("late", "late");
    ok(await late.finish(given("late"), "succeeded", "late\n"));
    expect(await workOff("queued", "later")).toBe(jobs["ticket"]);
    expect(await workOff("untold", "later")).toBe(jobs["untold"]);
    // Alarms are not in what was recorded; whoever asks sees to it that there is one.
    expect(await stateOf("debounced")).toBe("queued");
    vi.setSystemTime(about.recordedAt + 180_000);
    await runDurableObjectAlarm(lane("debounced"));
    expect(await workOff("debounced", "later")).toBe(jobs["debounced"]);

    const ends = await Promise.all(Object.keys(jobs).map(async (name) => [name, await stateOf(name)]));
    expect(ends.filter(([, state]) => !isFinalJobState(state as never))).toEqual([]);
    expect(Object.fromEntries(ends)).toMatchObject({
      running: "succeeded",
      assigned: "succeeded",
      cancelling: "cancelled",
      late: "succeeded",
    });
    for (const id of lanes) {
      const { events } = ok(await lane(id).history({ since: null, limit: 500, waitMs: 0 }));
      expect(events.map(({ sequence }) => Number(sequence))).toEqual(events.map((_, index) => index + 1));
    }
  });
});
