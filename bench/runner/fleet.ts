import { execFile, execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { call, getJob, isFinalJobState, type JobDetail } from "@plumule/protocol";
import { startEmbeddedBroker } from "../../cli/src/dev/embedded-broker.ts";
import {
  loadCredentials,
  LOCAL_NAMESPACE,
  mintRegistration,
  openLocalNamespace,
} from "../../cli/src/dev/local-namespace.ts";

/** A broker and a runner, each in a process of its own: the runner that of the package, as it is installed. */
export type Fleet = {
  /** The process of the runner. */
  runnerPid: number;
  /** Runs a script with a secret, so that everything it prints is looked through. Resolves when the broker has its result. */
  run(script: string): Promise<FinishedJob>;
  stop(): Promise<void>;
};

/** A job that has succeeded: when the broker had all of it, ms since 1970, and how much log it holds. */
export type FinishedJob = { finishedAtMs: number; logBytes: number };

const DEPLOYMENT = "bench";
const LOOK_MS = 50;
const READY_TRIES = 100;
const pack = fileURLToPath(new URL("../../scripts/pack.mjs", import.meta.url));

/** Starts them with everything that they keep below one folder. */
export async function startFleet(folder: string): Promise<Fleet> {
  const stateDir = join(folder, "broker");
  const credentials = await loadCredentials(folder);
  const broker = await startEmbeddedBroker({ port: 0, stateDir, adminToken: credentials.adminToken });
  if ("refused" in broker) throw new Error(broker.refused);
  const { url } = broker;
  const { token } = await openLocalNamespace(url, folder, credentials);
  const registration = await mintRegistration(url, token);
  execFileSync(process.execPath, [pack, folder], { stdio: ["ignore", "ignore", "inherit"] });
  const command = join(folder, "package/bin/plumule.mjs");
  const client = { fetch, baseUrl: url, bearer: token };
  const secret = join(folder, "secret");
  writeFileSync(secret, randomBytes(24).toString("base64url"), { mode: 0o600 });
  const env = {
    ...process.env,
    PLUMULE_URL: url,
    PLUMULE_NAMESPACE: LOCAL_NAMESPACE,
    PLUMULE_TOKEN: token,
    XDG_CONFIG_HOME: join(folder, "config"),
  };
  const state = ["--state", join(folder, "runner"), "--nix-store", join(folder, "nix")];
  const runner = spawn(command, ["runner", "start", ...state, "--registration", registration], {
    env,
    stdio: ["ignore", "ignore", "ignore"],
  });
  const left = once(runner, "exit");
  const { pid } = runner;
  if (pid === undefined) throw new Error("the runner could not be started");
  const submit = async (script: string): Promise<string> => {
    const args = ["submit", DEPLOYMENT, "--shell", script, "--secret", `TOKEN=@${secret}`];
    // A runner can be sealed to once it has published its key and said what it offers.
    for (let triesLeft = READY_TRIES; ; triesLeft -= 1) {
      const submitted = await promisify(execFile)(process.execPath, [command, ...args], { env }).catch(
        (error: Error) => error,
      );
      if (!(submitted instanceof Error)) return submitted.stdout.trim();
      if (triesLeft === 0) throw submitted;
      await pause(LOOK_MS);
    }
  };
  const jobOf = async (job: string): Promise<JobDetail> => {
    const read = await call(client, getJob, { params: { ns: LOCAL_NAMESPACE, job } });
    if (!read.ok) throw new Error(read.problem.detail);
    return read.answer.body;
  };
  return {
    runnerPid: pid,
    async run(script) {
      const id = await submit(script);
      for (;;) {
        const { job, runs } = await jobOf(id);
        if (!isFinalJobState(job.state)) {
          await pause(LOOK_MS);
          continue;
        }
        const [run] = runs;
        if (job.state !== "succeeded" || job.finishedAt === null || run === undefined)
          throw new Error(`a job of the bench ${job.state}: ${JSON.stringify(job.reason)}`);
        return { finishedAtMs: Date.parse(job.finishedAt), logBytes: run.log.bytes };
      }
    },
    async stop() {
      runner.kill("SIGTERM");
      await left;
      await broker.stop();
    },
  };
}
