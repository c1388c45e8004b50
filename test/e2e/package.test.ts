import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRegistration } from "@plumule/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestBroker, type TestBroker } from "../support/broker.ts";
import { startCommand } from "../support/command-line.ts";

const pack = join(import.meta.dirname, "../../scripts/pack.mjs");

describe("the package, installed in a folder without the repository and without a network", () => {
  let folder: string;
  let command: string;
  let broker: TestBroker;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "plumule-package-"));
    const tarball = execFileSync(process.execPath, [pack, folder], { encoding: "utf8" }).trim();
    const quiet = ["--offline", "--no-audit", "--no-fund", "--silent", "--cache", join(folder, "cache")];
    execFileSync("npm", ["install", ...quiet, "--prefix", join(folder, "installed"), tarball]);
    command = join(folder, "installed/node_modules/.bin/plumule");
    broker = await startTestBroker();
  });
  afterAll(async () => {
    await broker.stop();
    rmSync(folder, { recursive: true, force: true });
  });

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
