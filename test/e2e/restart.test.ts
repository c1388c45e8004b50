import { type ChildProcess, execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { getDeploymentEvents } from "@plumule/protocol";
import { afterEach, beforeEach, expect, it } from "vitest";
import { startTestBroker, type TestBroker } from "../support/broker.ts";
import { startKillableRunner } from "../support/killable-runner.ts";

let broker: TestBroker;
const children: ChildProcess[] = [];
beforeEach(async () => {
  broker = await startTestBroker();
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await broker?.stop();
});

const shell = (script: string): { task: { kind: "shell"; script: string } } => ({ task: { kind: "shell", script } });
const isAlive = (mark: string): boolean => {
  try {
    return execFileSync("pgrep", ["--full", mark]).length > 0;
  } catch {
    return false;
  }
};

const startProcess = async (name: string): Promise<ChildProcess> => {
  const { child } = await startKillableRunner(broker, name, { labels: [] });
  children.push(child);
  return child;
};

it("keeps jobs, logs and events through a restart of the broker, with one contiguous sequence", async () => {
  await broker.startRunner();
  const first = await broker.submit("lane", shell("echo first"));
  await broker.until(first.id);
  await broker.restart();
  const kept = await broker.job(first.id);
  expect(kept.job.state).toBe("succeeded");
  expect(await broker.log(kept.runs[0]!.id)).toBe("first\n");
  const second = await broker.submit("lane", shell("echo second"));
  await broker.until(second.id);
  const history = await broker.ask(getDeploymentEvents, { params: { deployment: "lane" } });
  const events = history.ok ? history.answer.body.events : [];
  expect(events.map((event) => Number(event.sequence))).toEqual(events.map((_, index) => index + 1));
  expect(events.filter((event) => event.type === "job.succeeded")).toHaveLength(2);
});

it("delivers the result of a job that ended while the broker was away, once", async () => {
  await broker.startRunner();
  const mark = join(broker.folder, `done-${randomUUID()}`);
  const job = await broker.submit("away", shell(`echo before; sleep 1.5; echo after; touch ${mark}`));
  await broker.until(job.id, "running");
  await broker.restart(async () => {
    for (let waited = 0; waited < 100 && !existsSync(mark); waited += 1) await pause(100);
    expect(existsSync(mark)).toBe(true);
    await pause(500);
  });
  const { job: done, runs } = await broker.until(job.id, undefined, 40_000);
  expect(done).toMatchObject({ state: "succeeded", attempt: 1 });
  expect(runs).toHaveLength(1);
  expect(await broker.log(runs[0]!.id)).toBe("before\nafter\n");
});

it("finishes what it does and takes nothing new when it is told to stop, and leaves with 0", async () => {
  const runner = await startProcess("drained");
  const first = await broker.submit("drained", shell("echo started; sleep 1; echo finished"));
  await broker.until(first.id, "running");
  runner.kill("SIGTERM");
  const second = await broker.submit("other", shell("echo never"));
  expect(await once(runner, "exit")).toEqual([0, null]);
  expect((await broker.until(first.id)).job.state).toBe("succeeded");
  expect((await broker.job(second.id)).job.state).toBe("queued");
});

it("gives its runs back when it is told to stop twice", async () => {
  const mark = `twice-${randomUUID()}`;
  const runner = await startProcess("twice");
  const job = await broker.submit("twice", {
    ...shell(`echo up; exec -a ${mark} sleep 300`),
    timeouts: { graceMs: 500 },
  });
  await broker.until(job.id, () => isAlive(mark));
  runner.kill("SIGTERM");
  await pause(300);
  runner.kill("SIGTERM");
  await once(runner, "exit");
  expect(isAlive(mark)).toBe(false);
  expect(await broker.until(job.id, "queued")).toMatchObject({ job: { state: "queued" } });
});
