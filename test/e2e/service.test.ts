import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRegistration } from "@plumule/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestBroker, type TestBroker } from "../support/broker.ts";
import { startCommand } from "../support/command-line.ts";

const pack = join(import.meta.dirname, "../../scripts/pack.mjs");

let broker: TestBroker;
beforeAll(async () => {
  broker = await startTestBroker();
});
afterAll(() => broker.stop());

describe("the package, installed in a folder without the repository and without a network", () => {
  let folder: string;
  let command: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "plumule-package-"));
    const tarball = execFileSync(process.execPath, [pack, folder], { encoding: "utf8" }).trim();
    const quiet = ["--offline", "--no-audit", "--no-fund", "--silent", "--cache", join(folder, "cache")];
    execFileSync("npm", ["install", ...quiet, "--prefix", join(folder, "installed"), tarball]);
    command = join(folder, "installed/node_modules/.bin/plumule");
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it("is one package, and says its version", () => {
    expect(readdirSync(join(folder, "installed/node_modules")).filter((name) => !name.startsWith("."))).toEqual([
      "plumule",
    ]);
    expect(execFileSync(command, ["--version"], { cwd: folder, encoding: "utf8" })).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  it("says in a sentence where a broker of one's own comes from", async () => {
    const dev = startCommand(["dev", "--port", "0"], {}, command);
    expect(await dev.done).toBe(2);
    expect(dev.err()).toContain("runs from the repository alone");
  });

  it("does a job, whose supervisor it finds, and leaves", async () => {
    const registration = await broker.ask(createRegistration, { body: {} });
    if (!registration.ok) throw new Error(registration.problem.detail);
    const { token } = registration.answer.body;
    const job = await broker.submit("packed", { task: { kind: "shell", script: "echo from the package" } });
    const state = join(folder, "state");
    const args = ["runner", "start", "--url", broker.url, "--namespace", "test", "--state", state, "--once"];
    const runner = startCommand([...args, "--registration", token], { HOME: folder }, command);
    const { job: done, runs } = await broker.until(job.id);
    expect(done.state).toBe("succeeded");
    expect(await broker.log(runs[0]?.id ?? "")).toContain("from the package");
    expect(await runner.done).toBe(0);
  });
});

it("a drain with a note and a deadline reaches the runner: its run goes back to the queue, and it leaves", async () => {
  const env = { PLUMULE_URL: broker.url, PLUMULE_NAMESPACE: "test", PLUMULE_TOKEN: broker.token };
  const runner = await broker.startRunner({ name: "jack", capacity: 2, labels: ["only=jack"] });
  const task = { kind: "shell" as const, script: "sleep 60" };
  const job = await broker.submit("his", { task, requires: { labels: ["only=jack"] } });
  await broker.until(job.id, "running");
  const drain = ["runner", "drain", "jack", "--note", "new disk", "--deadline", "1s", "--then", "exit"];
  expect(await startCommand(drain, env).done).toBe(0);
  const fleet = startCommand(["runner", "ls"], env);
  await fleet.done;
  expect(fleet.out()).toMatch(/jack .*drained, .*then leaves: new disk/);
  expect(await runner.done).toBe(0);
  expect(runner.said).toContainEqual(expect.stringContaining("drained (new disk): 1 run may end within"));
  expect((await broker.until(job.id, "queued")).runs[0]?.reason).toMatchObject({ code: "runner-stopped" });
  expect(await startCommand(["runner", "drain", "jack", "--deadline", "soon"], env).done).toBe(2);
});
