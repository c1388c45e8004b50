import { execFile, execFileSync } from "node:child_process";
import { chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { createRegistration, type JobDetail, type SubmitBody } from "@plumule/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestBroker, type TestBroker } from "../support/broker.ts";

/** Emulated processors take their time. */
const PATIENCE_MS = 240_000;
const UNIT = "plumule-runner";
const USER = "plumule";
const CONFIG = "/etc/plumule/runner.json";
const REGISTRATION = "/etc/plumule/registration";
const MIB = 1024 * 1024;
/** The package as it is installed, without the sources. */
const main = join(import.meta.dirname, "../../package/bin/plumule.mjs");

let broker: TestBroker;
let token: string;
/** Where jobs and tests leave each other words. */
let folder: string;

const run = promisify(execFile);
/** Asynchronous, because the broker answers from this process meanwhile. */
async function systemctl(...words: string[]): Promise<string> {
  const { stdout } = await run("systemctl", words);
  return stdout.trim();
}
const shown = (property: string): Promise<string> => systemctl("show", "--value", "--property", property, UNIT);
const journal = (): string => execFileSync("journalctl", ["--unit", UNIT, "--output", "cat"], { encoding: "utf8" });

async function submit(deployment: string, script: string, extra: Partial<SubmitBody> = {}): Promise<string> {
  return (await broker.submit(deployment, { task: { kind: "shell", script }, ...extra })).id;
}
const ended = (id: string): Promise<JobDetail> => broker.until(id, undefined, PATIENCE_MS);
/** A script that says where it is, and ends with the file of this name. */
const waitFor = (name: string): string =>
  `touch ${folder}/${name}-begun; until [ -e ${folder}/${name} ]; do sleep 0.2; done`;
const begun = (name: string): Promise<void> =>
  expect.poll(() => existsSync(join(folder, `${name}-begun`)), { timeout: PATIENCE_MS }).toBe(true);
const letGo = (name: string): void => writeFileSync(join(folder, name), "");

function configure(more: object): void {
  writeFileSync(CONFIG, JSON.stringify({ url: broker.url, namespace: "test", name: "king", capacity: 2, ...more }));
}

beforeAll(async () => {
  broker = await startTestBroker();
  const registration = await broker.ask(createRegistration, { body: {} });
  if (!registration.ok) throw new Error(registration.problem.detail);
  ({ token } = registration.answer.body);
  folder = mkdtempSync("/var/tmp/plumule-service-");
  const { uid, gid } = statSync(execFileSync("sh", ["-c", `echo ~${USER}`], { encoding: "utf8" }).trim());
  chownSync(folder, uid, gid);
  mkdirSync("/etc/plumule", { recursive: true });
  configure({});
  writeFileSync(REGISTRATION, token, { mode: 0o600 });
  execFileSync(process.execPath, [main, "runner", "install-service", "--write"]);
  await systemctl("daemon-reload");
  // Does not answer before the runner has said that it is ready.
  await systemctl("start", UNIT);
});
afterAll(async () => {
  await run("systemctl", ["stop", UNIT]);
  await broker.stop();
  rmSync(folder, { recursive: true, force: true });
});

describe("the service of a runner", () => {
  it("runs as its user in a cgroup below its own, and had its token from systemd alone", async () => {
    expect(await shown("ActiveState")).toBe("active");
    const pid = await shown("MainPID");
    expect(readFileSync(`/proc/${pid}/cgroup`, "utf8")).toBe(`0::/system.slice/${UNIT}.service/runner\n`);
    expect(statSync(`/proc/${pid}`).uid).toBe(statSync("/var/lib/plumule-runner").uid);
    for (const file of ["environ", "cmdline"])
      expect(readFileSync(`/proc/${pid}/${file}`, "utf8")).not.toContain(token);
    expect(journal()).toContain("memory of a job: limited by cgroup v2");
    expect(journal()).toContain("tasks of a job: limited by cgroup v2");
  });

  it("ends a job that takes more memory than it may, and goes on", async () => {
    const grow = "head -c 300M /dev/zero | tail -c 300M | cat >/dev/null; exit ${PIPESTATUS[1]}";
    const { job } = await ended(await submit("greedy", grow, { limits: { memoryBytes: 96 * MIB } }));
    expect(job).toMatchObject({ state: "failed", reason: { code: "out-of-memory", limit: "memory" } });
    const forks = await ended(
      await submit("forks", "exec sh -c 'for i in $(seq 60); do sleep 300 & done'", { limits: { taskCount: 24 } }),
    );
    expect(forks.job).toMatchObject({ state: "failed", reason: { limit: "tasks" } });
    expect(await shown("NRestarts")).toBe("0");
    expect(await shown("Result")).toBe("success");
  });

  it("is restarted while a job runs, which goes on and ends once", async () => {
    const id = await submit("patient", `${waitFor("go")}; echo went on`);
    await begun("go");
    const before = await shown("MainPID");
    await systemctl("restart", UNIT);
    expect(await shown("MainPID")).not.toBe(before);
    letGo("go");
    const { job, runs } = await ended(id);
    expect([job.state, runs.length]).toEqual(["succeeded", 1]);
    expect(await broker.log(runs[0]?.id ?? "")).toContain("went on");
    expect(journal()).not.toContain("timed out");
  });

  it("is started again by the watchdog when it hangs, and at the level cgroup nothing outlives a job", async () => {
    mkdirSync(`/run/systemd/system/${UNIT}.service.d`, { recursive: true });
    writeFileSync(`/run/systemd/system/${UNIT}.service.d/watchdog.conf`, "[Service]\nWatchdogSec=10s\nRestartSec=1\n");
    configure({ isolation: "cgroup" });
    await systemctl("daemon-reload");
    await systemctl("restart", UNIT);
    const id = await submit("watched", `(env -i setsid sleep 300 &); ${waitFor("seen")}`);
    await begun("seen");
    const hung = await shown("MainPID");
    process.kill(Number(hung), "SIGSTOP");
    await expect
      .poll(() => shown("MainPID"), { timeout: PATIENCE_MS, interval: 500 })
      .not.toMatch(new RegExp(`^(0|${hung})$`));
    await expect.poll(() => shown("ActiveState"), { timeout: PATIENCE_MS, interval: 500 }).toBe("active");
    expect(Number(await shown("NRestarts"))).toBeGreaterThan(0);
    letGo("seen");
    // An emulated machine may take longer to start it than the lease of the first run lasts.
    const { job, runs } = await ended(id);
    expect(job.state).toBe("succeeded");
    // What left session and environment is known by the cgroup alone.
    expect(runs).toContainEqual(
      expect.objectContaining({ state: "succeeded", isolation: "cgroup", survivorsKilled: 1 }),
    );
  });

  it("is seen by the doctor as it is, when systemd starts him like the runner", async () => {
    const like = [
      "--quiet",
      "--wait",
      "--pipe",
      `--uid=${USER}`,
      "-p",
      "Delegate=yes",
      "-p",
      "DelegateSubgroup=runner",
    ];
    const doctor = [process.execPath, main, "doctor", "--json", "--config", CONFIG, "--state", `/var/lib/${UNIT}`];
    const { stdout } = await run("systemd-run", [...like, ...doctor]).catch((error: { stdout: string }) => error);
    const checks = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { name: string });
    for (const name of ["registration", "isolation cgroup", "memory limit", "task limit"])
      expect(checks).toContainEqual(expect.objectContaining({ name, standing: "good" }));
  });

  it("leaves after its last job when it is told to, and is not started again", async () => {
    const id = await submit("last", waitFor("enough"));
    await begun("enough");
    await systemctl("kill", "--kill-whom=main", "--signal=SIGTERM", UNIT);
    await expect.poll(journal, { timeout: PATIENCE_MS }).toMatch(/1 run/);
    letGo("enough");
    expect((await ended(id)).job.state).toBe("succeeded");
    await expect.poll(() => shown("ActiveState"), { timeout: PATIENCE_MS, interval: 1_000 }).toBe("inactive");
    expect(await shown("Result")).toBe("success");
  });
});
