import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Assignment, Outcome, PollBody, ResultBody, SubmitBody } from "@plumule/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Broker, StandaloneCalls } from "../../runner/src/broker.ts";
import { type Clearance, Desk } from "../../runner/src/standalone/desk.ts";
import { withDesk } from "../../runner/src/standalone/local-broker.ts";

let folder: string;
let now: number;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "plumule-desk-"));
  now = Date.UTC(2026, 0, 1);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const open = (isKnown = true): Promise<Desk> =>
  Desk.open(
    {
      folder: join(folder, "desk"),
      runs: join(folder, "runs"),
      namespace: "me",
      hasBroker: true,
      now: () => now,
      say() {},
    },
    () => isKnown,
  );
const work = (commit: string, deployment = "app"): { deployment: string; spec: SubmitBody } => ({
  deployment,
  spec: {
    task: { kind: "shell", script: "true" },
    source: { repository: "rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5", commit: commit.repeat(40) },
  },
});
const poll = (over: Partial<PollBody> = {}): PollBody => ({
  requestKey: crypto.randomUUID(),
  protocol: 2,
  pool: "default",
  offer: { name: "r", systems: [], features: [], labels: [], isolation: "bwrap", version: "1", capacity: 2 },
  busy: 0,
  waitMs: 1_000,
  ...over,
});
const give = (desk: Desk, over: Partial<PollBody> = {}, clearance: Clearance = "begin"): Promise<Assignment | null> =>
  desk.give(poll(over), async () => clearance);
const result = (
  outcome: Outcome = "succeeded",
  code?: "refused" | "source-unavailable" | "runner-stopped",
): ResultBody => ({
  epoch: 0,
  outcome,
  exitCode: 0,
  reason: code === undefined ? null : { code, detail: "why" },
  finishedAt: new Date(now).toISOString(),
  isolation: "bwrap",
  survivorsKilled: 0,
  log: { bytes: 6, sha256: "a".repeat(64), truncated: false },
  outputs: [],
  statements: [{ payload: "", payloadType: "x", signatures: [{ sig: "" }] }],
});

describe("the jobs that a runner gives itself", () => {
  it("are each work once, also after a restart, and one at a time in a deployment", async () => {
    const desk = await open();
    expect(await desk.offer(work("a"))).not.toBeNull();
    expect(await desk.offer(work("a", "elsewhere"))).toBeNull();
    await desk.offer(work("b"));
    await desk.offer(work("c", "other"));
    const again = await open();
    expect(await again.offer(work("a"))).toBeNull();
    const commitOf = (given: Assignment | null): string | undefined => given?.spec.source?.commit[0];
    const first = await give(again);
    expect(commitOf(first)).toBe("a");
    expect(first).toMatchObject({ epoch: 0, attempt: 1, namespace: "me" });
    expect(commitOf(await give(again, { busy: 1 }))).toBe("c");
    expect(await give(again)).toBeNull();
    await again.end(first?.run ?? "", result());
    expect(await give(again, { busy: 2 })).toBeNull();
    expect(await give(again, { waitMs: 0 })).toBeNull();
    expect(commitOf(await give(again))).toBe("b");
  });

  it("are given again to the same poll, and to another when nobody began them in time", async () => {
    const requestKey = crypto.randomUUID();
    let desk = await open();
    await desk.offer(work("a"));
    const given = await give(desk, { requestKey });
    desk = await open();
    expect((await give(desk, { requestKey, waitMs: 0 }))?.run).toBe(given?.run);
    expect(await give(desk)).toBeNull();
    now += 31_000;
    const other = await give(desk);
    expect(other).toMatchObject({ job: given?.job, attempt: 2 });
    expect([await desk.beat(given?.run ?? ""), await desk.beat(other?.run ?? "")]).toEqual([false, true]);
    now += 3_600_000;
    expect(await give(await open())).toBeNull();
    expect(await give(await open(false))).toMatchObject({ job: given?.job, attempt: 3 });
  });

  it("are tried again when nothing could be run, for a time and not for ever, and never when that is refused", async () => {
    const desk = await open();
    await desk.offer(work("a"));
    for (const attempt of [1, 2, 3]) {
      const given = await give(desk);
      expect(given).toMatchObject({ attempt });
      await desk.end(given?.run ?? "", result("refused", "source-unavailable"));
      expect(await give(desk)).toBeNull();
      now += 31_000;
    }
    expect(desk.list()).toMatchObject([{ state: "ended", told: false }]);
    await desk.offer(work("b"));
    await desk.end((await give(desk))?.run ?? "", result("refused", "refused"));
    now += 31_000;
    expect(await give(desk)).toBeNull();
  });

  it("keep their logs when the folder of the run goes", async () => {
    const desk = await open();
    await desk.offer(work("a"));
    const { run = "" } = (await give(desk)) ?? {};
    mkdirSync(join(folder, "runs", run), { recursive: true });
    writeFileSync(join(folder, "runs", run, "log"), "hello\n");
    const job = await desk.end(run, result());
    expect(await desk.end(run, result("failed"))).toEqual(job);
    rmSync(join(folder, "runs"), { recursive: true });
    expect(job === null || existsSync(desk.logOf(job))).toBe(true);
    expect(job === null ? "" : readFileSync(desk.logOf(job), "utf8")).toBe("hello\n");
  });

  it("are not begun when the broker has the work", async () => {
    const desk = await open();
    await desk.offer(work("a"));
    expect(await give(desk, {}, { laterAt: now + 5_000 })).toBeNull();
    expect(await give(desk)).toBeNull();
    now += 5_000;
    const elsewhere = "0199a0b1-c2d3-7000-8abc-0123456789ab";
    expect(await give(desk, {}, { elsewhere })).toBeNull();
    expect(desk.list()).toMatchObject([{ state: "ended", elsewhere, said: "ended", told: true }]);
    expect(await desk.offer(work("a"))).toBeNull();
  });
});

describe("a runner with a desk and a broker", () => {
  type Remote = Broker & StandaloneCalls;
  const problem = { type: "x", title: "x", status: 0, code: "unavailable", detail: "away", next: "wait" } as const;
  const away = { ok: false, retry: true, problem, logSize: null } as const;
  const remote = (over: Partial<Remote>): Remote => {
    const unasked = async (): Promise<never> => Promise.reject(new Error("nobody asks for this"));
    const calls = { publish: unasked, heartbeat: unasked, report: unasked, appendLog: unasked, result: unasked };
    const none = { recordStandalone: unasked, appendStandaloneLog: unasked, findWork: async () => away };
    return { pool: async () => ({ ok: true, value: "big" }), poll: async () => away, ...calls, ...none, ...over };
  };
  const ask = async (desk: Desk, over: Partial<Remote>): Promise<unknown> =>
    withDesk(remote(over), desk, () => now).poll(poll(), new AbortController().signal);

  it("does its own work at once while the broker is away, and breaks off a poll for work that comes in", async () => {
    const desk = await open();
    expect(await ask(desk, {})).toEqual(away);
    await desk.offer(work("a"));
    expect(await ask(desk, {})).toMatchObject({ ok: true, value: { epoch: 0 } });
    const held = ask(desk, {
      poll: async (body, signal) => {
        expect(body.pool).toBe("big");
        await desk.offer(work("b", "other"));
        expect(signal.aborted).toBe(true);
        return away;
      },
    });
    expect(await held).toMatchObject({ ok: true, value: { deployment: "other" } });
  });

  it("waits for what the broker may yet hear of, and leaves it what it has", async () => {
    const desk = await open();
    await desk.offer(work("a"));
    const unheard: Partial<Remote> = {
      findWork: async () => ({ ok: true, value: null }),
      poll: async () => ({ ok: true, value: null }),
    };
    expect(await ask(desk, unheard)).toMatchObject({ ok: true, value: null });
    now += 11_000;
    const superseded = { id: "0199a0b1-c2d3-7000-8abc-0123456789ab", state: "superseded" } as const;
    expect(await ask(desk, { ...unheard, findWork: async () => ({ ok: true, value: superseded }) })).toMatchObject({
      ok: true,
      value: { epoch: 0 },
    });
    await desk.offer(work("b", "other"));
    const running = { ...superseded, state: "running" } as const;
    expect(await ask(desk, { ...unheard, findWork: async () => ({ ok: true, value: running }) })).toMatchObject({
      ok: true,
      value: null,
    });
    expect(desk.list().map(({ elsewhere }) => elsewhere)).toEqual([null, running.id]);
  });

  it("keeps a refusal of the broker, and writes runs of its own to nobody", async () => {
    const desk = await open();
    const refusal = { ...away, retry: false };
    expect(await ask(desk, { poll: async () => refusal })).toEqual(refusal);
    await desk.offer(work("a"));
    const broker = withDesk(remote({}), desk, () => now);
    const given = await desk.give(poll(), async () => "begin");
    if (given === null) throw new Error("nothing was given");
    expect(await broker.heartbeat(given, {})).toMatchObject({ ok: true, value: { command: null } });
    expect(await broker.appendLog(given, 3, new Uint8Array(4))).toEqual({ ok: true, value: { bytes: 7 } });
    expect(await broker.result(given, result())).toMatchObject({
      ok: true,
      value: { accepted: true, state: "succeeded" },
    });
    expect(await broker.heartbeat(given, {})).toMatchObject({ ok: false, retry: false });
  });
});
