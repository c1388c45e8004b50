import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { isRefusal, LIMITS, utf8, type JobView } from "@plumule/protocol";
import { afterEach, expect, it, vi } from "vitest";
import type { Lane } from "../../durable-objects/deployment/core/model.ts";
import { namespaceObject } from "../../durable-objects/shared/names.ts";
import {
  advance,
  alarmOf,
  codeOf,
  eventsOf,
  newHouse,
  ok,
  rowsWritten,
  Runner,
  submit,
  type House,
} from "./deployment-harness.ts";

afterEach(() => {
  vi.useRealTimers();
});

const jobOf = async ({ deployment }: House, id: string): Promise<JobView> => ok(await deployment.job(id)).job;
const startApplying = async (house: House, runner: Runner): ReturnType<Runner["start"]> => {
  const assignment = await runner.start();
  const { run, leaseToken, epoch } = assignment;
  const events = [{ type: "phase" as const, phase: "applying" as const, at: new Date().toISOString() }];
  ok(await house.deployment.report({ run, leaseToken, body: { epoch, number: 1, events } }));
  return assignment;
};

it("takes a job back whose runner did not acknowledge it, and refuses that runner's late heartbeat", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const { job } = await submit(house);
  const assignment = (await runner.poll())!;
  await evictDurableObject(house.deployment);
  advance(LIMITS.acknowledgeMs + 1);
  expect(await runDurableObjectAlarm(house.deployment)).toBe(true);
  expect(await jobOf(house, job.id)).toMatchObject({
    state: "queued",
    attempt: 1,
    reason: { code: "not-acknowledged" },
    waiting: { reason: "backoff" },
  });
  expect(codeOf(await runner.beat(assignment))).toBe("stale-lease");
  expect((await eventsOf(house)).map(({ type }) => type)).toContain("run.lost");
});

it("extends a lease with every heartbeat, without setting the alarm again", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const { job } = await submit(house);
  const assignment = await runner.start();
  // Once everything is told, only the lease is due.
  await scheduler.wait(1_000);
  await runDurableObjectAlarm(house.deployment);
  const [before, alarm] = [await rowsWritten(house), await alarmOf(house)];
  for (let beat = 0; beat < 5; beat += 1) ok(await runner.beat(assignment));
  expect((await rowsWritten(house)) - before).toBe(5);
  expect(await alarmOf(house)).toBe(alarm);
  advance(LIMITS.leaseMs - 1_000);
  ok(await runner.beat(assignment));
  advance(2_000);
  await runDurableObjectAlarm(house.deployment);
  expect((await jobOf(house, job.id)).state).toBe("running");
  expect(await alarmOf(house)).toBeGreaterThan(Date.now());
});

it("ends a lease without heartbeats, and runs the job elsewhere with a higher epoch", async () => {
  const house = await newHouse();
  const [king, queen] = [await Runner.in(house), await Runner.in(house)];
  const { job } = await submit(house);
  const first = await king.start();
  ok(
    await house.deployment.appendLog({
      run: first.run,
      leaseToken: first.leaseToken,
      epoch: first.epoch,
      offset: 0,
      bytes: utf8("half"),
    }),
  );
  advance(LIMITS.leaseMs + 1);
  await runDurableObjectAlarm(house.deployment);
  expect(ok(await house.deployment.run(first.run))).toMatchObject({
    state: "lost",
    log: { state: "truncated", bytes: 4 },
  });
  advance(2_000);
  await runDurableObjectAlarm(house.deployment);
  const second = await queen.start();
  expect(second).toMatchObject({ job: job.id, attempt: 2 });
  expect(second.epoch).toBeGreaterThan(first.epoch);
  expect(ok(await king.finish(first))).toEqual({ accepted: false, late: true, state: "running" });
  expect(ok(await queen.finish(second))).toMatchObject({ accepted: true, state: "succeeded" });
});

it("leaves a job unknown whose runner vanished while it applied, until a person says how it ended", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const { job } = await submit(house);
  await startApplying(house, runner);
  advance(LIMITS.leaseMs + 1);
  await runDurableObjectAlarm(house.deployment);
  expect((await jobOf(house, job.id)).state).toBe("unknown");
  const resolve = (): ReturnType<House["deployment"]["resolve"]> =>
    house.deployment.resolve({ actor: "token:boss", job: job.id, outcome: "succeeded", reason: "looked at the host" });
  expect(ok(await resolve())).toMatchObject({
    state: "succeeded",
    reason: { code: "resolved", detail: "looked at the host" },
  });
  expect(codeOf(await resolve())).toBe("wrong-state");
  expect(ok(await house.deployment.read()).deployment.currentJob).toBe(job.id);
});

it("stops a run that takes too long, and ends the lane's wait for it even if its runner only asks for more", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const { job } = await submit(house, { timeouts: { runMs: 60_000, graceMs: 5_000 } });
  const assignment = await runner.start();
  for (let beat = 0; beat < 2; beat += 1) {
    advance(30_001);
    ok(await runner.beat(assignment));
  }
  await runDurableObjectAlarm(house.deployment);
  expect(await jobOf(house, job.id)).toMatchObject({ state: "cancelling" });
  expect(ok(await runner.beat(assignment)).command).toMatchObject({ reason: { code: "run-timeout" }, graceMs: 5_000 });
  for (let beat = 0; beat < 2; beat += 1) {
    advance(24_000);
    ok(await runner.beat(assignment));
  }
  advance(2_001);
  await runDurableObjectAlarm(house.deployment);
  expect(await jobOf(house, job.id)).toMatchObject({ state: "failed", reason: { code: "run-timeout" } });
  expect(codeOf(await runner.beat(assignment))).toBe("stale-lease");
});

it("stops a silent run; log bytes count as a sign of life", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const { job } = await submit(house, { timeouts: { silenceMs: 40_000 } });
  const assignment = await runner.start();
  const { run, leaseToken, epoch } = assignment;
  advance(30_000);
  ok(await house.deployment.appendLog({ run, leaseToken, epoch, offset: 0, bytes: utf8("alive\n") }));
  ok(await runner.beat(assignment));
  advance(30_000);
  ok(await runner.beat(assignment));
  await runDurableObjectAlarm(house.deployment);
  expect((await jobOf(house, job.id)).state).toBe("running");
  advance(11_000);
  ok(await runner.beat(assignment));
  await runDurableObjectAlarm(house.deployment);
  expect((await jobOf(house, job.id)).state).toBe("cancelling");
});

it("fails a job that nobody took in time", async () => {
  const house = await newHouse();
  const { job } = await submit(house, { timeouts: { queueMs: 60_000 } });
  const held = await submit(house, { hold: true, timeouts: { queueMs: 60_000 } });
  advance(60_001);
  await runDurableObjectAlarm(house.deployment);
  expect(await jobOf(house, job.id)).toMatchObject({ state: "failed", reason: { code: "queue-timeout" } });
  expect((await jobOf(house, held.job.id)).state).toBe("failed");
});

it("lets a burst settle: only its last job runs, and not later than its longest wait", async () => {
  const house = await newHouse();
  const debounce = { quietMs: 5_000, maxMs: 8_000 };
  const { job: first } = await submit(house, { mode: "replace", debounce });
  expect(first.waiting).toMatchObject({ reason: "debounce", etaMs: 5_000 });
  advance(4_000);
  const { job: second, superseded } = await submit(house, { mode: "replace", debounce });
  expect(superseded).toEqual([first.id]);
  // 8 s after the burst began, not 5 s after its newest submit.
  expect(second.waiting?.etaMs).toBeLessThanOrEqual(4_000);
  advance(4_001);
  await runDurableObjectAlarm(house.deployment);
  expect((await (await Runner.in(house)).start()).job).toBe(second.id);
});

it("joins an equal job that has not ended", async () => {
  const house = await newHouse();
  const first = await submit(house, { dedupeKey: "push-1" });
  const joined = await submit(house, { dedupeKey: "push-1" }, "key");
  expect(joined).toMatchObject({ joined: true, job: { id: first.job.id } });
  expect(await submit(house, { dedupeKey: "push-1" }, "key")).toEqual(joined);
  const runner = await Runner.in(house);
  ok(await runner.finish(await runner.start()));
  expect((await submit(house, { dedupeKey: "push-1" })).joined).toBe(false);
});

it("wakes up by itself: a real alarm fires in a fresh instance", async () => {
  const house = await newHouse();
  const { job } = await submit(house, { timeouts: { queueMs: 1_000 } });
  await evictDurableObject(house.deployment);
  await vi.waitFor(async () => expect((await jobOf(house, job.id)).state).toBe("failed"), {
    timeout: 8_000,
    interval: 500,
  });
}, 15_000);

it("sets the alarm again when it was lost", async () => {
  const house = await newHouse();
  await submit(house, { requires: { systems: ["riscv64-linux"] } });
  await scheduler.wait(500);
  await runInDurableObject(house.deployment, (_, state) => state.storage.deleteAlarm());
  await evictDurableObject(house.deployment);
  expect(await alarmOf(house)).toBeNull();
  ok(await house.deployment.read());
  expect(await alarmOf(house)).not.toBeNull();
});

it("tells its namespace later what it could not tell at once", async () => {
  const namespace = `dep-${crypto.randomUUID().slice(0, 8)}`;
  const opened = await newHouse();
  const house: House = {
    ...opened,
    namespace,
    deployment: env.DEPLOYMENT.getByName(`${namespace}/web`) as unknown as House["deployment"],
  };
  const { job } = await submit(house, { requires: { systems: ["riscv64-linux"] } });
  await new Promise((resolve) => setTimeout(resolve, 600));
  const published = (): Promise<number> =>
    runInDurableObject(
      house.deployment,
      (_, state) =>
        (JSON.parse(state.storage.sql.exec<{ record: string }>("SELECT record FROM lane").one().record) as Lane)
          .published,
    );
  const toldAtOnce = await published();
  await namespaceObject(env, namespace).open({ id: namespace });
  await evictDurableObject(house.deployment);
  advance(20_000);
  await runDurableObjectAlarm(house.deployment);
  await vi.waitFor(async () => expect(await published()).toBeGreaterThan(toldAtOnce), 3_000);
  const query = { state: null, deployment: null, commit: null, cursor: null, limit: 10 };
  expect(ok(await namespaceObject(env, namespace).listJobs(query)).items.map(({ id }) => id)).toEqual([job.id]);
});

it("forgets answers to keys after a day", async () => {
  const house = await newHouse();
  const first = await submit(house, {}, "key");
  advance(LIMITS.idempotencyMs + 1);
  await runDurableObjectAlarm(house.deployment);
  const kept = await runInDurableObject(
    house.deployment,
    (_, state) => state.storage.sql.exec<{ count: number }>("SELECT count(*) AS count FROM requests").one().count,
  );
  expect(kept).toBe(0);
  expect((await submit(house, {}, "key")).job.id).not.toBe(first.job.id);
});

it("keeps the newest logs only, and says so for the others", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const runs: string[] = [];
  for (let count = 0; count < LIMITS.logsKept + 5; count += 1) {
    await submit(house);
    const assignment = (await runner.poll())!;
    ok(await runner.finish(assignment, "succeeded", "hello\n"));
    runs.push(assignment.run);
  }
  advance(1_000);
  await runDurableObjectAlarm(house.deployment);
  const read = (run: string): ReturnType<House["deployment"]["readLog"]> =>
    house.deployment.readLog({ run, offset: 0, limit: 10 });
  const answers = await Promise.all(runs.map(read));
  const expired = answers.filter((answer) => isRefusal(answer) && answer.refused === "log-expired").length;
  expect(expired).toBeGreaterThan(0);
  expect(answers.slice(0, expired).every(isRefusal)).toBe(true);
  expect(answers.slice(expired).some(isRefusal)).toBe(false);
  expect(ok(await house.deployment.run(runs[0]!)).log).toMatchObject({ state: "expired", bytes: 6 });
}, 30_000);

it("leaves memory when nothing happens, with its alarm set and a stream open, and goes on where it stopped", async () => {
  const house = await newHouse();
  const { job } = await submit(house, { requires: { systems: ["riscv64-linux"] } });
  const upgrade = await house.deployment.fetch("https://broker.test/stream", {
    headers: { Upgrade: "websocket", "Sec-WebSocket-Protocol": "plumule.v1" },
  });
  const socket = upgrade.webSocket!;
  socket.accept();
  const frames: string[] = [];
  socket.addEventListener("message", ({ data }) => void frames.push(String(data)));
  const mark = (): Promise<string> =>
    runInDurableObject(house.deployment, (instance) => {
      const marked = instance as unknown as { mark?: string };
      return (marked.mark ??= crypto.randomUUID());
    });
  // Once its namespace was told, the next thing that is due is the time-out of the queue, a day from now.
  await scheduler.wait(1_000);
  await runDurableObjectAlarm(house.deployment);
  expect(await alarmOf(house)).toBeGreaterThan(Date.now() + 3600_000);
  const before = await mark();
  expect(await mark()).toBe(before);
  await scheduler.wait(14_000);
  expect(await mark()).not.toBe(before);
  socket.send(JSON.stringify({ op: "subscribe", id: "s" }));
  await vi.waitFor(() => expect(frames.some((frame) => frame.includes(job.id))).toBe(true));
  expect(await alarmOf(house)).not.toBeNull();
  socket.close(1000);
}, 30_000);
