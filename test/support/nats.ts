import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";

/** The NATS server of this machine, or null; Debian puts it where daemons are, which is not on everybody's PATH. */
export const natsServer: string | null =
  [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin"]
    .map((folder) => join(folder, "nats-server"))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    }) ?? null;

/** A NATS server at work on a port of its own. */
export type TestNats = {
  url: string;
  /** Ends it; `start` brings it back at the same port. */
  stop(): Promise<void>;
  start(): Promise<void>;
  /** Ends it for good. */
  remove(): Promise<void>;
};

/** Starts a NATS server with a configuration, in its own format. */
export async function startNats(configuration = ""): Promise<TestNats> {
  const folder = await mkdtemp(join(tmpdir(), "plumule-nats-"));
  const config = join(folder, "nats.conf");
  await writeFile(config, configuration);
  let child: ChildProcess | null = null;
  let port = "-1";
  const nats: TestNats = {
    url: "",
    async start() {
      child = spawn(natsServer ?? "nats-server", ["--config", config, "--addr", "127.0.0.1", "--port", port], {
        stdio: ["ignore", "ignore", "pipe"],
      });
      let log = "";
      for await (const line of createInterface({ input: child.stderr as Readable })) {
        log += `${line}\n`;
        if (line.includes("Server is ready")) break;
      }
      port = /client connections on 127\.0\.0\.1:(\d+)/.exec(log)?.[1] ?? "";
      if (port === "") throw new Error(`nats-server does not start: ${log}`);
      nats.url = `nats://127.0.0.1:${port}`;
    },
    async stop() {
      if (child === null || child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGTERM");
      await once(child, "exit");
    },
    async remove() {
      await nats.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
  await nats.start();
  return nats;
}
