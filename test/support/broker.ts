import { execFileSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  call,
  type CallAnswer,
  type CallInput,
  createNamespace,
  createRegistration,
  createToken,
  type Endpoint,
  getJob,
  getLog,
  isFinalJobState,
  type JobDetail,
  type JobState,
  type SubmitBody,
  submitJob,
} from "@plumule/protocol";
import { type RunnerOptions, type RunningRunner, startRunner } from "@plumule/runner";
import { processesAbout } from "./command-line.ts";
import { type EmbeddedBroker, startEmbeddedBroker } from "../../cli/src/dev/embedded-broker.ts";

/** A broker of a test's own in real workerd, with a namespace and an admin token of it. */
export type TestBroker = {
  url: string;
  token: string;
  folder: string;
  ask<E extends Endpoint>(
    endpoint: E,
    input: Omit<CallInput<E>, "params"> & { params?: Record<string, string> },
  ): Promise<CallAnswer<E>>;
  submit(deployment: string, body: SubmitBody): Promise<JobDetail["job"]>;
  job(id: string): Promise<JobDetail>;
  /** Waits for a state of a job, by default a final one. */
  until(id: string, state?: JobState | ((detail: JobDetail) => boolean), withinMs?: number): Promise<JobDetail>;
  log(run: string): Promise<string>;
  /** Kills the broker and starts it again on the same port and state, after `whileAway`. */
  restart(whileAway?: () => Promise<void>): Promise<void>;
  /** `through` stands between the runner and its broker. */
  startRunner(options?: Partial<RunnerOptions>, through?: typeof fetch): Promise<RunningRunner & { said: string[] }>;
  stop(): Promise<void>;
};

const ADMIN = "admin-token-of-a-test";

/** Starts one. Everything that it and its runners write is below one temporary folder, which `stop` removes. */
export async function startTestBroker(): Promise<TestBroker> {
  const folder = await mkdtemp(join(tmpdir(), "plumule-e2e-"));
  const start = async (port: number): Promise<EmbeddedBroker> => {
    const started = await startEmbeddedBroker({ port, stateDir: join(folder, "broker"), adminToken: ADMIN });
    if ("refused" in started) throw new Error(started.refused);
    return started;
  };
  let broker = await start(0);
  const ns = "test";
  const admin = { fetch, baseUrl: broker.url, bearer: ADMIN };
  must(await call(admin, createNamespace, { params: {}, body: { id: ns } }));
  const created = must(await call(admin, createToken, { params: { ns }, body: { name: "test", scopes: ["admin"] } }));
  const client = { fetch, baseUrl: broker.url, bearer: created.token };
  const runners: RunningRunner[] = [];
  const test: TestBroker = {
    url: broker.url,
    token: created.token,
    folder,
    ask: (endpoint, input) => call(client, endpoint, { ...input, params: { ns, ...input.params } } as never),
    submit: async (deployment, body) => must(await call(client, submitJob, { params: { ns, deployment }, body })).job,
    job: async (id) => must(await call(client, getJob, { params: { ns, job: id } })),
    async until(id, state = (detail) => isFinalJobState(detail.job.state), withinMs = 30_000) {
      const reached = typeof state === "string" ? (detail: JobDetail): boolean => detail.job.state === state : state;
      for (const end = Date.now() + withinMs; ;) {
        const detail = await test.job(id);
        if (reached(detail)) return detail;
        if (Date.now() > end)
          throw new Error(
            `job ${id} is ${detail.job.state} (${JSON.stringify(detail.job.reason ?? detail.job.waiting)})`,
          );
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    },
    async log(run) {
      const answer = await call(client, getLog, { params: { ns, run } });
      if (!answer.ok) throw new Error(answer.problem.detail);
      return answer.response.text();
    },
    async restart(whileAway = async () => {}) {
      await broker.stop();
      await whileAway();
      broker = await start(broker.port);
    },
    async startRunner(options = {}, through = fetch) {
      const registration = must(await call(client, createRegistration, { params: { ns }, body: {} }));
      const said: string[] = [];
      const name = options.name ?? `runner-${runners.length}`;
      const runner = await startRunner(
        {
          url: broker.url,
          namespace: ns,
          state: join(folder, name),
          name,
          registration: registration.token,
          allowLocal: true,
          nixStore: join(folder, "nix"),
          ...options,
        },
        { fetch: through, say: (line) => said.push(line) },
      );
      if ("refused" in runner) throw new Error(runner.refused);
      runners.push(runner);
      return { ...runner, said };
    },
    async stop() {
      for (const runner of runners) for (let signal = 0; signal < 2; signal += 1) runner.stop();
      await Promise.all(runners.map((runner) => runner.done));
      await broker.stop();
      // A supervisor whose run has ended writes its compiled code as it leaves, and daemons of jobs end with it.
      for (const end = Date.now() + 10_000; processesAbout(folder).length > 0 && Date.now() < end;)
        await new Promise((resolve) => setTimeout(resolve, 20));
      // A Nix store makes its folders read-only.
      execFileSync("chmod", ["-R", "u+w", folder]);
      await rm(folder, { recursive: true, force: true });
    },
  };
  return test;
}

function must<E extends Endpoint>(
  answer: CallAnswer<E>,
): Exclude<Extract<CallAnswer<E>, { ok: true }>["answer"]["body"], null> {
  if (!answer.ok) throw new Error(`${answer.problem.code}: ${answer.problem.detail}`);
  return answer.answer.body as never;
}

/** A git repository with one commit of the given files. Answers its URL and the commit. */
export async function makeRepository(
  folder: string,
  files: Readonly<Record<string, string>>,
): Promise<{ url: string; commit: string; path: string }> {
  const path = await mkdtemp(join(folder, "repository-"));
  const git = (...args: string[]): string =>
    execFileSync("git", ["-c", "user.name=test", "-c", "user.email=test@example.invalid", "-C", path, ...args], {
      encoding: "utf8",
    }).trim();
  git("init", "--quiet", "--initial-branch=main");
  for (const [name, text] of Object.entries(files)) {
    execFileSync("mkdir", ["-p", join(path, name, "..")]);
    await writeFile(join(path, name), text);
  }
  git("add", "--all");
  git("commit", "--quiet", "--message=grow");
  return { url: `file://${path}`, commit: git("rev-parse", "HEAD"), path };
}
