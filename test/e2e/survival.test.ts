import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { copyFileSync, existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { cancelJob, getDeploymentEvents, type JobDetail, type SubmitBody } from "@plumule/protocol";
import { startRunner } from "@plumule/runner";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestBroker, type TestBroker } from "../support/broker.ts";
import { type KillableRunner, startKillableRunner } from "../support/killable-runner.ts";

// Each test has a runner of its own, which takes only the jobs that ask for it, so that the tests may overlap.

let broker: TestBroker;
const runners: KillableRunner[] = [];
beforeAll(async () => {
  broker = await startTestBroker();
});
afterAll(async () => {
  for (const { child } of runners) child.kill("SIGKILL");
  await broker?.stop();
});

async function start(
  ...args: Parameters<typeof startKillableRunner> extends [unknown, ...infer Rest] ? Rest : never
): Promise<KillableRunner> {
  const runner = await startKillableRunner(broker, ...args);
  runners.push(runner);
  return runner;
}

const shell = (name: string, script: string, rest: Partial<SubmitBody> = {}): SubmitBody => ({
  task: { kind: "shell", script },
  requires: { labels: [name] },
  ...rest,
});
const isAlive = (mark: string): boolean => {
  try {
    return execFileSync("pgrep", ["--full", mark]).length > 0;
  } catch {
    return false;
  }
};
const LINES = Array.from({ length: 20 }, (_, line) => `line ${line}\n`).join("");
const COUNTING = "for i in $(seq 0 19); do echo line $i; sleep 0.1; done; exit 5";
const hasLog = ({ runs }: JobDetail): boolean => (runs[0]?.log.bytes ?? 0) > 0;

/** What a job that was done once, whole, looks like to everybody. */
async function expectOnce(name: string, job: string, end: { exitCode: number; log: string }): Promise<void> {
  const { job: done, runs } = await broker.until(job, undefined, 40_000);
  expect(done).toMatchObject({ state: end.exitCode === 0 ? "succeeded" : "failed", attempt: 1 });
  expect(runs).toHaveLength(1);
  expect(runs[0]).toMatchObject({ exitCode: end.exitCode, log: { state: "complete" } });
  expect(await broker.log(runs[0]!.id)).toBe(end.log);
  const history = await broker.ask(getDeploymentEvents, { params: { deployment: name } });
  const types = history.ok ? history.answer.body.events.map(({ type }) => type) : [];
  for (const type of ["run.finished", done.state === "failed" ? "job.failed" : "job.succeeded"])
    expect([type, types.filter((one) => one === type).length]).toEqual([type, 1]);
  const phases = history.ok
    ? history.answer.body.events.flatMap(({ type, data }) =>
        type === "job.phase" ? [(data as { phase?: string }).phase] : [],
      )
    : [];
  expect(phases).toEqual([...new Set(phases)]);
}

describe.concurrent("a runner that is killed and started again", () => {
  it("finds its job at work and follows it: every line, no event twice, one result", async ({ expect }) => {
    const runner = await start("followed");
    const job = await broker.submit("followed", shell("followed", COUNTING));
    await broker.until(job.id, hasLog);
    await runner.kill();
    await start("followed");
    await expectOnce("followed", job.id, { exitCode: 5, log: LINES });
    await expect.poll(() => readdirSync(join(runner.state, "runs")), { timeout: 5_000 }).toEqual([]);
    expect(readdirSync(join(runner.state, "spool"))).toEqual([]);
  });

  it("finds how a job ended while there was no runner", async ({ expect }) => {
    const runner = await start("ended");
    const job = await broker.submit("ended", shell("ended", COUNTING));
    const { runs } = await broker.until(job.id, hasLog);
    await runner.kill();
    await expect
      .poll(() => existsSync(join(runner.state, "runs", runs[0]!.id, "exit.json")), { timeout: 40_000 })
      .toBe(true);
    const journal = join(runner.state, "journal", `${runs[0]!.id}.json`);
    expect(existsSync(journal)).toBe(true);
    await start("ended");
    await expectOnce("ended", job.id, { exitCode: 5, log: LINES });
  });

  it("delivers once a result that was in the spool when the journal still named its run", async ({ expect }) => {
    const runner = await start("spooled", { url: broker.url });
    const job = await broker.submit("spooled", shell("spooled", COUNTING));
    const { runs } = await broker.until(job.id, hasLog);
    const run = runs[0]!.id;
    const record = join(broker.folder, "spooled.json");
    copyFileSync(join(runner.state, "journal", `${run}.json`), record);
    await runner.kill();
    // A broker that answers nobody: the result gets into the spool and no further.
    const away = await start("spooled", { url: "http://127.0.0.1:9", registration: undefined });
    await expect.poll(() => readdirSync(join(runner.state, "spool")), { timeout: 40_000 }).toEqual([`${run}.json`]);
    await expect.poll(() => existsSync(join(runner.state, "journal", `${run}.json`))).toBe(false);
    await away.kill();
    copyFileSync(record, join(runner.state, "journal", `${run}.json`));
    await start("spooled");
    await expectOnce("spooled", job.id, { exitCode: 5, log: LINES });
  });

  it.for(["sent", "answered"] as const)(
    "begins a job once when it was killed with its first heartbeat %s",
    async (dies, { expect }) => {
      const name = `beat-${dies}`;
      const runner = await start(name, {}, dies);
      const job = await broker.submit(name, shell(name, "echo once"));
      expect(await runner.ended).toEqual([null, "SIGKILL"]);
      await start(name);
      await expectOnce(name, job.id, { exitCode: 0, log: "once\n" });
    },
  );

  it("brings a cancel to a job that it follows, and leaves no process", async ({ expect }) => {
    const mark = `cancelled-${randomUUID()}`;
    const runner = await start("cancelled");
    const script = `trap 'echo bye; exit 3' TERM; setsid bash -c 'exec -a ${mark} sleep 300' & exec 2>&1; echo up; (exec -a ${mark} sleep 300) & wait`;
    const job = await broker.submit("cancelled", shell("cancelled", script, { timeouts: { graceMs: 2_000 } }));
    await broker.until(job.id, hasLog);
    await runner.kill();
    expect(isAlive(mark)).toBe(true);
    await start("cancelled");
    await broker.ask(cancelJob, { params: { job: job.id }, body: {} });
    const { runs } = await broker.until(job.id, "cancelled");
    expect(await broker.log(runs[0]!.id)).toBe("up\nbye\n[plumule] killed a process that was left: sleep\n");
    expect(isAlive(mark)).toBe(false);
  });

  it("does not stop the time-outs of its jobs", async ({ expect }) => {
    const runner = await start("late", { capacity: 2 });
    const long = await broker.submit(
      "long",
      shell("late", "while :; do echo x; sleep 0.2; done", { timeouts: { runMs: 3_000, graceMs: 100 } }),
    );
    const silent = await broker.submit(
      "silent",
      shell("late", "echo x; sleep 60", { timeouts: { silenceMs: 3_000, graceMs: 100 } }),
    );
    await broker.until(long.id, hasLog);
    const { runs } = await broker.until(silent.id, hasLog);
    await runner.kill();
    await expect
      .poll(() => existsSync(join(runner.state, "runs", runs[0]!.id, "exit.json")), { timeout: 40_000 })
      .toBe(true);
    await start("late", { capacity: 2 });
    expect((await broker.until(long.id)).job.reason?.code).toBe("run-timeout");
    expect((await broker.until(silent.id)).job.reason?.code).toBe("silence-timeout");
  });

  it("leaves its jobs to its next start when it is asked to, at once and with 0", async ({ expect }) => {
    const runner = await start("left");
    const job = await broker.submit("left", shell("left", COUNTING));
    await broker.until(job.id, hasLog);
    runner.child.kill("SIGHUP");
    expect(await runner.ended).toEqual([0, null]);
    expect((await broker.job(job.id)).job.state).toBe("running");
    await start("left");
    await expectOnce("left", job.id, { exitCode: 5, log: LINES });
  });
});

describe.concurrent("a job whose supervisor is killed", () => {
  it("dies with it, is reported at once, and begins again", async ({ expect }) => {
    const mark = `orphan-${randomUUID()}`;
    const flag = join(broker.folder, mark);
    const runner = await start("supervised");
    const script = `if [ -e ${flag} ]; then echo again; else touch ${flag}; echo up; setsid bash -c 'exec -a ${mark} sleep 300' & exec -a ${mark} sleep 300; fi`;
    const job = await broker.submit("supervised", shell("supervised", script));
    const { runs } = await broker.until(job.id, hasLog);
    const { supervisor } = JSON.parse(
      execFileSync("cat", [join(runner.state, "journal", `${runs[0]!.id}.json`)], { encoding: "utf8" }),
    ) as { supervisor: { pid: number } };
    expect(isAlive(mark)).toBe(true);
    process.kill(supervisor.pid, "SIGKILL");
    const { job: done, runs: both } = await broker.until(job.id, undefined, 40_000);
    expect(isAlive(mark)).toBe(false);
    expect(done).toMatchObject({ state: "succeeded", attempt: 2 });
    expect(both.find(({ attempt }) => attempt === 1)?.reason?.code).toBe("runner-lost");
  });
});

describe.concurrent("a state folder", () => {
  it("has one runner at a time", async ({ expect }) => {
    const runner = await start("alone");
    const second = await startRunner(
      { url: broker.url, namespace: "test", state: runner.state, name: "alone" },
      { fetch, say: () => {} },
    );
    expect(second).toMatchObject({ refused: expect.stringContaining("is in use by process") });
  });
});
