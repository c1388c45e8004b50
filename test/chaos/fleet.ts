import { createRegistration } from "@plumule/protocol";
import { type CommandLine, pidsAbout, startCommand } from "../support/command-line.ts";
import { ask, type Client } from "./client.ts";
import { type Proxy, startProxy } from "./proxy.ts";
import { randomOf } from "./random.ts";

/** What of a runner is killed: its process alone, or with it everything that it started, as a machine's end does. */
export const RUNNER_KILLS = ["process", "machine"] as const;
export type RunnerKill = (typeof RUNNER_KILLS)[number];

/** A runner, as an operator starts it, behind a network of its own. */
export type MortalRunner = {
  name: string;
  proxy: Proxy;
  /** Kills it without a warning, waits, and starts it again on the same state. */
  kill(what: RunnerKill, awayMs: number): Promise<void>;
  /** What it has said, in all its lives. */
  said(): string;
  /** Ends it, and its runs. */
  stop(): Promise<void>;
};

/** Starts and registers one, which keeps its state in `folder`. */
export async function startMortalRunner(
  client: Client,
  { name, port, folder, seed }: { name: string; port: number; folder: string; seed: string },
): Promise<MortalRunner> {
  const proxy = await startProxy(port, randomOf(`${seed} network of ${name}`));
  const registration = await ask(client, createRegistration, { params: { ns: client.ns }, body: {} });
  const state = `${folder}/${name}`;
  const lives: CommandLine[] = [];
  const start = async (...more: string[]): Promise<CommandLine> => {
    const named = ["--url", proxy.url, "--namespace", client.ns, "--state", state, "--name", name];
    const args = ["runner", "start", ...named, "--capacity", "3", "--nix-store", `${folder}/nix`, ...more];
    const life = startCommand(args);
    lives.push(life);
    await life.printed("polling");
    return life;
  };
  let life = await start("--registration", registration.token);
  return {
    name,
    proxy,
    async kill(what, awayMs) {
      life.child.kill("SIGKILL");
      if (what === "machine") killAll(`${state}/`);
      await life.done;
      await new Promise((resolve) => setTimeout(resolve, awayMs));
      life = await start();
    },
    said: () => lives.map((one) => `${one.out()}${one.err()}`).join("--- killed ---\n"),
    async stop() {
      for (let signal = 0; signal < 3; signal += 1) {
        life.child.kill("SIGTERM");
        const ended = await Promise.race([
          life.done.then(() => true),
          new Promise((resolve) => setTimeout(resolve, 1_500, false)),
        ]);
        if (ended === true) break;
      }
      await life.done;
      await proxy.close();
    },
  };
}

/** Kills every process that knows of a folder, until there is none: one that was found may have started another. */
function killAll(folder: string): void {
  for (let pids = pidsAbout(folder); pids.length > 0; pids = pidsAbout(folder)) {
    for (const pid of pids) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It died with another.
      }
    }
  }
}
