import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createRegistration } from "@plumule/protocol";
import type { RunnerOptions } from "@plumule/runner";
import type { TestBroker } from "./broker.ts";

/** A runner in a process of its own. */
export type KillableRunner = {
  child: ChildProcess;
  /** Folder of its key, journal, spool and runs. */
  state: string;
  /** Kills it, and resolves when it is gone. */
  kill(): Promise<void>;
  /** Resolves when it has ended, to its exit code and signal. */
  ended: Promise<[number | null, NodeJS.Signals | null]>;
};

/**
 * Starts a runner that a test can kill, and waits for its first words. The same `name` is the same runner; it takes only jobs that ask for that
 * label. `dies` lets it kill itself around its first heartbeat.
 */
export async function startKillableRunner(
  broker: TestBroker,
  name: string,
  options: Partial<RunnerOptions> = {},
  dies?: "sent" | "answered",
): Promise<KillableRunner> {
  const registration = await broker.ask(createRegistration, { body: {} });
  if (!registration.ok) throw new Error(registration.problem.detail);
  const state = join(broker.folder, name);
  const settings: RunnerOptions = {
    url: broker.url,
    namespace: "test",
    state,
    name,
    labels: [name],
    registration: registration.answer.body.token,
    nixStore: join(broker.folder, "nix"),
    ...options,
  };
  const module = fileURLToPath(new URL("runner-process.ts", import.meta.url));
  const args = [module, JSON.stringify(settings), ...(dies === undefined ? [] : [dies])];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(child, "exit") as Promise<[number | null, NodeJS.Signals | null]>;
  if (child.stdout !== null) await Promise.race([once(child.stdout, "data"), ended]);
  return {
    child,
    state,
    ended,
    async kill() {
      child.kill("SIGKILL");
      await ended;
    },
  };
}
