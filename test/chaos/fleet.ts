import { createRegistration } from "@plumule/protocol";
import { type CommandLine, startCommand } from "../support/command-line.ts";
import { ask, type Client } from "./client.ts";
import { type Proxy, startProxy } from "./proxy.ts";
import { randomOf } from "./random.ts";

/** A runner, as an operator starts it, behind a network of its own. */
export type MortalRunner = {
  name: string;
  proxy: Proxy;
  /** Kills its process alone, without a warning, waits, and starts it again on the same state. */
  kill(awayMs: number): Promise<void>;
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
  const lives: CommandLine[] = [];
  const start = async (...more: string[]): Promise<CommandLine> => {
    const named = ["--url", proxy.url, "--namespace", client.ns, "--state", `${folder}/${name}`, "--name", name];
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
    async kill(awayMs) {
      life.child.kill("SIGKILL");
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
