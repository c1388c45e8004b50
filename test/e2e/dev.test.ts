import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { call, getDeploymentEvents, getJob, listJobs, type JobView, submitJob, type Task } from "@plumule/protocol";
import { startEmbeddedBroker } from "../../cli/src/dev/embedded-broker.ts";
import { type CommandLine, processesAbout, startCommand } from "../support/command-line.ts";

type Instance = { url: string; namespace: string; token: string; adminToken: string; pid: number };

let folder: string;
let state: string;
let running: CommandLine[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "plumule-dev-test-"));
  [state, running] = [join(folder, "state"), []];
});
afterEach(async () => {
  for (const { child } of running) child.kill("SIGKILL");
  await gone();
  rmSync(folder, { recursive: true, force: true });
});

/** Starts `plumule dev` and waits until it says where it is. */
async function start(...args: string[]): Promise<{ command: CommandLine; instance: Instance }> {
  const command = launch(...args);
  await command.printed('"url"');
  return { command, instance: JSON.parse(readFileSync(join(state, "dev.json"), "utf8")) as Instance };
}

function launch(...args: string[]): CommandLine {
  const command = startCommand(["dev", "--json", "--port", "0", "--state", state, ...args], { PLUMULE_TEST: folder });
  running.push(command);
  return command;
}

async function gone(): Promise<string[]> {
  for (let tries = 0; tries < 40 && processesAbout(folder).length > 0; tries += 1) await pause(50);
  return processesAbout(folder);
}

async function submit({ url, token }: Instance, script: string): Promise<JobView> {
  const task: Task = { kind: "shell", script };
  const client = { fetch, baseUrl: url, bearer: token };
  const answer = await call(client, submitJob, { params: { ns: "local", deployment: "lane" }, body: { task } });
  if (!answer.ok) throw new Error(answer.problem.detail);
  return answer.answer.body.job;
}

async function until({ url, token }: Instance, job: string, wanted: JobView["state"]): Promise<JobView> {
  const client = { fetch, baseUrl: url, bearer: token };
  for (let tries = 0; tries < 200; tries += 1, await pause(100)) {
    const answer = await call(client, getJob, { params: { ns: "local", job } });
    if (answer.ok && answer.answer.body.job.state === wanted) return answer.answer.body.job;
  }
  throw new Error(`job ${job} did not become ${wanted}`);
}

describe("plumule dev", () => {
  it("runs a broker and a runner that do a job, and tells where they are in a file of its user alone", async () => {
    const { command, instance } = await start();
    expect(statSync(join(state, "dev.json")).mode & 0o777).toBe(0o600);
    expect(statSync(join(state, "credentials.json")).mode & 0o777).toBe(0o600);
    expect(instance).toMatchObject({ namespace: "local", pid: command.child.pid });
    expect(JSON.parse(command.out())).toMatchObject({ url: instance.url, runner: expect.stringMatching(/^did:key:/) });
    expect(await (await fetch(`${instance.url}/healthz`)).json()).toEqual({ ok: true });
    const job = await submit(instance, "echo hello");
    expect(await until(instance, job.id, "succeeded")).toMatchObject({ runner: JSON.parse(command.out()).runner });
  });

  it.each(["SIGINT", "SIGTERM"] as const)(
    "ends everything that it started at %s, and keeps nothing but its state",
    async (signal) => {
      const { command } = await start();
      expect(processesAbout(folder).join("\n")).toContain("workerd");
      command.child.kill(signal);
      expect(await command.done).toBe(0);
      expect(await gone()).toEqual([]);
      expect(existsSync(join(state, "dev.json"))).toBe(false);
      expect(readdirSync(folder)).toEqual(["state"]);
    },
  );

  it("keeps tokens, jobs and events across a restart", async () => {
    const before = await start();
    const job = await submit(before.instance, "echo hello");
    await until(before.instance, job.id, "succeeded");
    before.command.child.kill("SIGINT");
    await before.command.done;

    const { instance } = await start();
    expect(instance).toMatchObject({ token: before.instance.token, adminToken: before.instance.adminToken });
    const client = { fetch, baseUrl: instance.url, bearer: instance.token };
    const jobs = await call(client, listJobs, { params: { ns: "local" } });
    expect(jobs.ok && jobs.answer.body.items).toMatchObject([{ id: job.id, state: "succeeded" }]);
    const of = { params: { ns: "local", deployment: "lane" } };
    const events = await call(client, getDeploymentEvents, of);
    const types = events.ok ? events.answer.body.events.map(({ type }) => type) : [];
    expect(types).toContain("job.succeeded");
    await until(instance, (await submit(instance, "echo again")).id, "succeeded");
  });

  it("ends a running job with itself, and begins it again with the next start", async () => {
    const before = await start();
    const job = await submit(
      before.instance,
      `if [ -e '${folder}/second' ]; then exit 0; fi; touch '${folder}/second'; sleep 300`,
    );
    for (let tries = 0; tries < 100 && !existsSync(join(folder, "second")); tries += 1) await pause(50);
    before.command.child.kill("SIGINT");
    expect(await before.command.done).toBe(0);
    expect(await gone()).toEqual([]);
    const { instance } = await start();
    expect(await until(instance, job.id, "succeeded")).toMatchObject({ attempt: 2 });
  });

  it("leaves no orphan when it is killed, and can be started again on the same state", async () => {
    const { command } = await start();
    command.child.kill("SIGKILL");
    await command.done;
    expect(await gone()).toEqual([]);
    const { instance } = await start();
    expect((await fetch(`${instance.url}/healthz`)).status).toBe(200);
  });

  it("leaves no engine on its databases when the broker's process alone is killed, and a next broker opens them", async () => {
    const options = { port: 0, stateDir: state, adminToken: "the-admin-token-of-a-test" };
    const first = await startEmbeddedBroker(options);
    if ("refused" in first) throw new Error(first.refused);
    expect(processesAbout(state).join("\n")).toContain("workerd");
    process.kill(first.pid, "SIGKILL");
    await first.done;
    expect(await gone()).toEqual([]);
    const second = await startEmbeddedBroker({ ...options, port: first.port });
    if ("refused" in second) throw new Error(second.refused);
    expect((await fetch(`${second.url}/healthz`)).status).toBe(200);
    await second.stop();
  });

  it("says in one sentence that its folder is in use", async () => {
    await start("--no-runner");
    const second = launch();
    expect(await second.done).toBe(2);
    expect(JSON.parse(second.out())).toMatchObject({
      error: { title: expect.stringMatching(/is in use by process \d+/) },
    });
    expect(existsSync(join(state, "dev.json"))).toBe(true);
  });

  it("says in one sentence that its port is in use", async () => {
    const other = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => other.once("listening", resolve));
    const { port } = other.address() as AddressInfo;
    const command = launch("--port", String(port));
    expect(await command.done).toBe(2);
    expect(JSON.parse(command.out())).toMatchObject({
      error: { title: expect.stringContaining(`Port ${port} is in use`) },
    });
    other.close();
  });

  it("refuses what is no port", async () => {
    expect(await launch("--port", "http").done).toBe(2);
  });
});
