import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { RunningRunner } from "@plumule/runner";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { probeIsolation } from "../../runner/src/isolation.ts";
import { makeRepository, startTestBroker, type TestBroker } from "../support/broker.ts";
import { processesAbout, startCommand } from "../support/command-line.ts";

const main = join(import.meta.dirname, "../../cli/src/main.ts");
const available = probeIsolation().available;
const LEVELS = (["bwrap", "process-group"] as const).filter((level) => available.includes(level));

let broker: TestBroker;
const env = (): Record<string, string> => ({
  PLUMULE_URL: broker.url,
  PLUMULE_NAMESPACE: "test",
  PLUMULE_TOKEN: broker.token,
});

beforeAll(async () => {
  broker = await startTestBroker();
  const runners: Promise<RunningRunner>[] = LEVELS.map((isolation) =>
    broker.startRunner({
      name: isolation,
      isolation,
      labels: [isolation],
      capacity: 2,
      allowExec: true,
      keepFailedMs: 3600_000,
    }),
  );
  await Promise.all([...runners, broker.startRunner({ name: "closed", labels: ["closed"] })]);
});
afterAll(() => broker?.stop());

/** Begins a job of a runner and waits until it has written `ready`; `touch go` in its workspace lets it end. */
async function begin(label: string, script: string): Promise<{ job: string; run: string; cwd: string }> {
  const { id } = await broker.submit(`${label}-${randomBytes(4).toString("hex")}`, {
    task: { kind: "shell", script: `${script}; echo "ready in $PWD"; until [ -e go ]; do sleep 0.05; done` },
    requires: { labels: [label] },
  });
  const { job } = await broker.until(id, "running");
  const run = job.run ?? "";
  let log = "";
  await expect.poll(async () => (log = await broker.log(run)), { timeout: 15_000 }).toContain("ready in");
  return { job: id, run, cwd: /ready in (\S+)/.exec(log)?.[1] ?? "" };
}

/** Ends the job. */
async function letGo({ job, cwd }: { job: string; cwd: string }): Promise<void> {
  spawn("touch", [join(cwd, "go")]);
  await broker.until(job);
}

/** Processes that sleep for so long. */
const sleeping = (seconds: number): string[] => processesAbout(`sleep\0${seconds}`);

type Ended = { code: number | null; out: Buffer; err: string };
/** `plumule runner exec`, with something on standard input. */
async function exec(run: string, command: string[], input: Uint8Array = new Uint8Array(0)): Promise<Ended> {
  const child = spawn(process.execPath, [main, "runner", "exec", "--run", run, ...command], {
    env: { ...process.env, NO_COLOR: "1", ...env() },
  });
  const out: Buffer[] = [];
  let err = "";
  child.stdout.on("data", (chunk: Buffer) => out.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
  child.stdin.on("error", () => {}).end(input);
  const [code] = (await once(child, "close")) as [number | null];
  return { code, out: Buffer.concat(out), err };
}

describe.each(LEVELS)("a session in a run that works, at level %s", (level) => {
  it("is where the run is, with its environment, and ends with the command's exit code", async () => {
    const run = await begin(level, "echo of the job >note; readlink /proc/self/ns/pid >namespace");
    const script =
      'cat note; [ "$(readlink /proc/self/ns/pid)" = "$(cat namespace)" ] && echo same; echo $PLUMULE_RUN; echo oops >&2; exit 3';
    const ended = await exec(run.run, ["--", "sh", "-c", script]);
    expect(ended.out.toString(), ended.err).toBe(`of the job\nsame\n${run.run}\n`);
    expect(ended.err).toContain(`in the run that works, isolation ${level}, no terminal`);
    expect(ended.err).toContain("oops\n");
    expect(ended.code).toBe(3);
    await letGo(run);
    expect((await broker.job(run.job)).job.state).toBe("succeeded");
  });

  it("is over when the run is", async () => {
    const run = await begin(level, "true");
    const script = "sleep 311 & echo at work; wait";
    const session = startCommand(["runner", "exec", "--run", run.run, "--", "sh", "-c", script], env());
    await session.printed("at work");
    await letGo(run);
    expect(await session.done).not.toBe(0);
    expect(session.err()).toContain("the session ended: the run has ended");
    expect(sleeping(311)).toEqual([]);
  });
});

describe("a session", () => {
  const [level = "process-group"] = LEVELS;

  it("brings much in and out, as it was", async () => {
    const run = await begin(level, "true");
    const bytes = randomBytes(3_000_000);
    const { out, code, err } = await exec(run.run, ["--", "cat"], bytes);
    expect([code, out.length], err).toEqual([0, bytes.length]);
    expect(createHash("sha256").update(out).digest("hex")).toBe(createHash("sha256").update(bytes).digest("hex"));
    await letGo(run);
  });

  it("has a terminal for a person who has one: its size, its echo, its Ctrl-C, and a shell by default", async () => {
    const run = await begin(level, "echo of the job >note");
    const command = `stty rows 33 cols 111; exec '${process.execPath}' '${main}' runner exec --run ${run.run}`;
    const child = spawn("script", ["-qfec", command, "/dev/null"], {
      env: { ...process.env, ...env(), NO_COLOR: "1", TERM: "xterm", SHELL: "/bin/sh" },
    });
    let screen = "";
    child.stdout.on("data", (chunk: Buffer) => (screen += chunk.toString()));
    const shows = (text: string | RegExp): Promise<void> =>
      expect.poll(() => screen, { timeout: 15_000 }).toMatch(text);
    await shows(/Ctrl-\] leaves/);
    child.stdin.write("tty; stty size; echo $TERM; cat note\n");
    await shows(/\/dev\/pts\/\d+\s+33 111\s+xterm\s+of the job/);
    const asked = performance.now();
    child.stdin.write("echo $((20+3))\n");
    await shows(/^23\s/m);
    const answeredMs = performance.now() - asked;
    child.stdin.write("sleep 312\n");
    await expect.poll(() => sleeping(312).length, { timeout: 10_000 }).toBeGreaterThan(0);
    child.stdin.write("\x03");
    await expect.poll(() => sleeping(312), { timeout: 10_000 }).toEqual([]);
    child.stdin.write("exit 7\n");
    const [code] = (await once(child, "close")) as [number | null];
    expect(code).toBe(7);
    expect(answeredMs).toBeLessThan(3_000);
    await letGo(run);
  });

  it("leaves nothing when the person is gone", async () => {
    const run = await begin(level, "true");
    const command = startCommand(
      ["runner", "exec", "--run", run.run, "--", "sh", "-c", "sleep 313 & echo at work; sleep 314; true"],
      env(),
    );
    await command.printed("at work");
    command.child.kill("SIGKILL");
    await expect.poll(() => [...sleeping(313), ...sleeping(314)], { timeout: 15_000 }).toEqual([]);
    await letGo(run);
  });

  it("may be about a failed run whose workspace was kept, without what it was told", async () => {
    const { url, commit } = await makeRepository(broker.folder, { committed: "of the commit\n" });
    const { id } = await broker.submit("kept", {
      task: { kind: "shell", script: "echo half done >note; exit 4" },
      source: { repository: url, commit },
      requires: { labels: [level] },
      env: { COLOUR: "green" },
    });
    const { job } = await broker.until(id);
    const run = job.run ?? "";
    await expect
      .poll(async () => (await exec(run, ["--", "sh", "-c", "cat committed note; echo $COLOUR"])).out.toString(), {
        timeout: 20_000,
      })
      .toBe("of the commit\nhalf done\ngreen\n");
    const { err } = await exec(run, ["--", "true"]);
    expect(err).toContain(`in the workspace that was kept, isolation ${level}`);
  });
});

describe("nobody is let in", () => {
  const [level = "process-group"] = LEVELS;

  it("to a run that went well, whose workspace is gone", async () => {
    const { id } = await broker.submit("gone", {
      task: { kind: "shell", script: "pwd" },
      requires: { labels: [level] },
    });
    const { job } = await broker.until(id);
    const { code, err } = await exec(job.run ?? "", []);
    expect([code, err]).toEqual([5, expect.stringContaining("its workspace is not kept")]);
    const folder = (await broker.log(job.run ?? "")).trim();
    await expect.poll(() => existsSync(folder), { timeout: 10_000 }).toBe(false);
  });

  it("by a runner whose owner did not allow it", async () => {
    const run = await begin("closed", "true");
    const { code, err } = await exec(run.run, []);
    expect([code, err]).toEqual([3, expect.stringContaining("lets nobody into its workspaces")]);
    expect(err).toContain("plumule runner start --allow-exec");
    await letGo(run);
  });
});
