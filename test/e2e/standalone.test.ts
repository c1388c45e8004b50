import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { createRegistration, getStatements, type JobView, listJobs, type SubmitBody } from "@plumule/protocol";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { startTestBroker, type TestBroker } from "../support/broker.ts";
import { newPerson, StorageRepository } from "../support/radicle.ts";

const main = join(import.meta.dirname, "../../cli/src/main.ts");
const standIn = join(import.meta.dirname, "../fixtures/rad-job");
const alice = newPerson();
const task = { kind: "shell", script: "git log -1 --format=%s" } as const;
const WITHIN = { timeout: 40_000, interval: 100 };

let broker: TestBroker;
let home: string;
let repository: StorageRepository;
let tip: string;
let registration: string;
let follower: ChildProcess | null = null;
let said: string[];

beforeAll(async () => {
  broker = await startTestBroker();
  home = join(broker.folder, "node");
  repository = new StorageRepository(home, { delegates: [alice] });
  tip = repository.commit("before");
  repository.push(alice, { "refs/heads/main": tip });
  writeFileSync(join(home, "node-id"), alice.node);
  writeFileSync(join(home, "has-seed"), "");
  mkdirSync(join(home, "keys"));
  writeFileSync(join(home, "keys/radicle.pub"), `ssh-ed25519 ${opensshKey().toString("base64")} alice\n`);
  const rules = { triggers: [{ name: "ci", refs: ["refs/heads/main"], deployment: "app-{branch}", task }] };
  writeFileSync(join(broker.folder, "rules.json"), JSON.stringify(rules));
  const made = await broker.ask(createRegistration, { body: {} });
  if (!made.ok) throw new Error(made.problem.detail);
  registration = made.answer.body.token;
}, 60_000);
afterAll(async () => {
  await kill();
  await broker.stop();
}, 60_000);

/** The node's public key as OpenSSH writes it. */
function opensshKey(): Buffer {
  const { x = "" } = alice.privateKey.export({ format: "jwk" });
  const parts = [Buffer.from("ssh-ed25519"), Buffer.from(x, "base64url")];
  return Buffer.concat(parts.flatMap((part) => [Buffer.from([0, 0, 0, part.length]), part]));
}

/** Starts the runner that follows, as a person would; `path` is what it finds before the machine's programs. */
function follow(path = standIn): void {
  const args = ["runner", "start", "--registration", registration, "--isolation", "process-group"];
  const follows = ["--follow", `rad:${repository.id}`, "--follow-rules", join(broker.folder, "rules.json")];
  const env = {
    ...process.env,
    PATH: `${path}${delimiter}${process.env["PATH"]}`,
    PLUMULE_URL: broker.url,
    PLUMULE_NAMESPACE: "test",
    PLUMULE_STATE: state(),
    RAD_HOME: home,
  };
  said = [];
  const child = spawn(process.execPath, [main, ...args, ...follows], { env, stdio: ["ignore", "inherit", "pipe"] });
  child.stderr.setEncoding("utf8").on("data", (text: string) => said.push(...text.split("\n")));
  follower = child;
}

async function kill(): Promise<void> {
  if (follower === null || follower.exitCode !== null) return;
  follower.kill("SIGKILL");
  await once(follower, "exit");
}

const state = (): string => join(broker.folder, "follower");
const says = (text: string): Promise<void> =>
  vi.waitFor(
    () =>
      expect(
        said.some((line) => line.includes(text)),
        `${text} in\n${said.join("\n")}`,
      ).toBe(true),
    WITHIN,
  );
/** What was written into job COBs, in order. */
const written = (): string[] =>
  readFileSync(join(home, "commands"), "utf8")
    .split("\n")
    .filter((line) => /^(?:new|run|succeeded|failed) /.test(line));

function push(message: string): string {
  tip = repository.commit(message, [tip]);
  repository.push(alice, { "refs/heads/main": tip });
  return tip;
}

async function jobsOf(commit: string): Promise<JobView[]> {
  const listed = await broker.ask(listJobs, { query: { commit } });
  if (!listed.ok) throw new Error(listed.problem.detail);
  return listed.answer.body.items;
}

it(
  "does what is pushed while the broker is down, says it in the job COB and tells the broker, each once however often it is killed",
  { timeout: 120_000 },
  async () => {
    // There is no rad-job, so that it is killed when it has executed and has written nothing.
    follow("/nonexistent");
    await says("what is there is history");
    let commit = "";
    await broker.restart(async () => {
      commit = push("alone");
      await says("succeeded; its log is");
      await says("not in its job COB yet");
      await kill();
      // And once more when it has written, and has told nobody.
      follow();
      await says("succeeded in the job COB");
      await kill();
    });
    const [job] = readdirSync(join(state(), "standalone"))
      .filter((name) => name.endsWith(".json"))
      .map((name) => name.slice(0, -".json".length));
    follow();
    await says(`job ${job}: the broker knows of it now`);
    const { job: view, runs } = await broker.job(job ?? "");
    expect(view).toMatchObject({ state: "succeeded", standalone: true, deployment: "app-main", source: { commit } });
    expect(runs).toMatchObject([{ epoch: 0, log: { state: "complete" } }]);
    expect(await broker.log(runs[0]?.id ?? "")).toBe("alone\n");
    const statements = await broker.ask(getStatements, { params: { job: view.id } });
    expect(statements.ok).toBe(true);
    const url = `${broker.url}/j/${job}`;
    expect(written()).toEqual([`new ${commit}`, `run ${commit} ${url}`, `succeeded ${commit}`]);
    await vi.waitFor(async () => expect((await jobsOf(commit)).map(({ id }) => id)).toEqual([job]), WITHIN);
    // Whoever asks the broker for the same work gets this.
    const source = { repository: `rad:${repository.id}`, commit, ref: "refs/heads/main" };
    expect(await broker.submit("app-main", { task, source })).toMatchObject({ id: job, standalone: true });
  },
);

it("leaves to the broker what the broker has, also when it did that itself", { timeout: 60_000 }, async () => {
  const commit = repository.commit("ordered", [tip]);
  repository.setCanonical("refs/heads/ordered", commit);
  repository.push(alice, { "refs/heads/ordered": commit });
  const spec: SubmitBody = { task, source: { repository: `rad:${repository.id}`, commit } };
  const ordered = await broker.submit("app-main", spec);
  expect((await broker.until(ordered.id)).job).toMatchObject({ state: "succeeded" });
  tip = commit;
  repository.push(alice, { "refs/heads/main": commit });
  await says(`the broker has this work as job ${ordered.id}`);
  expect((await jobsOf(commit)).map(({ id }) => id)).toEqual([ordered.id]);
  expect(written().some((line) => line.includes(commit))).toBe(false);
});
