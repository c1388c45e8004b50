import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

/** A radicle-node at work. */
export type RadicleNode = { stop(): Promise<void> };

/**
 * Tells a node whose home is `radHome` to speak with nobody whom it is not told to by name, on no network but that of tests. `listen` are addresses at
 * which others may.
 */
export async function setApart(radHome: string, listen: readonly string[] = []): Promise<void> {
  const file = join(radHome, "config.json");
  const config = JSON.parse(await readFile(file, "utf8")) as { node: object };
  const node = {
    ...config.node,
    connect: [],
    network: "test",
    peers: { type: "static" },
    listen,
    relay: "always",
    seedingPolicy: { default: "allow", scope: "all" },
  };
  await writeFile(file, JSON.stringify({ ...config, preferredSeeds: [], node }));
}

/** Runs a node until it ends, or until whoever holds the other end of file 3 lets go of it, if only because it was killed. */
const WHILE_HELD = 'radicle-node --force & node=$!; { read -r _; kill "$node"; } <&3 & wait "$node"';

/** Starts the node of `env.RAD_HOME` and waits until it answers. It ends with this process, however that ends. */
export async function startRadicleNode(env: NodeJS.ProcessEnv & { RAD_HOME: string }): Promise<RadicleNode> {
  const child = spawn("sh", ["-c", WHILE_HELD], { env, stdio: ["ignore", "ignore", "ignore", "pipe"] });
  const failure = Promise.withResolvers<never>();
  child.on("error", failure.reject);
  child.on("exit", (code) => failure.reject(new Error(`radicle-node has ended with ${code}`)));
  failure.promise.catch(() => {});
  await Promise.race([answering(join(env.RAD_HOME, "node/control.sock")), failure.promise]);
  return { stop: () => stop(child) };
}

async function answering(socket: string): Promise<void> {
  while (!(await answers(socket))) await pause(50);
}

function answers(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const line = connect(socket, () => resolve(line.destroy() !== undefined)).on("error", () => resolve(false));
  });
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.stdio[3]?.destroy();
  await ended;
}
