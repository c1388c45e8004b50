import { readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { type EmbeddedBroker, startEmbeddedBroker } from "../../cli/src/dev/embedded-broker.ts";
import type { Random } from "./random.ts";

/** What of a broker is killed: the engine alone, the process that started it, or both at once, as a machine's end does. */
export const BROKER_KILLS = ["engine", "process", "machine"] as const;
export type BrokerKill = (typeof BROKER_KILLS)[number];

/** A broker that is killed and started again on the same port and state. */
export type MortalBroker = {
  url: string;
  port: number;
  /** Kills it without a warning, waits, and starts it again; resolves when it answers. */
  kill(what: BrokerKill, awayMs: number): Promise<void>;
  /** Memory of the engine now, bytes; 0 while it is away. */
  engineBytes(): number;
  stop(): Promise<void>;
};

/** Starts one. Its port is outside of those that the system gives to outgoing connections, which could take it while the broker is away. */
export async function startMortalBroker(stateDir: string, adminToken: string, random: Random): Promise<MortalBroker> {
  const port = await freePort(random);
  const start = async (): Promise<EmbeddedBroker> => {
    const started = await startEmbeddedBroker({ port, stateDir, adminToken });
    if ("refused" in started) throw new Error(started.refused);
    return started;
  };
  let broker = await start();
  const { url } = broker;
  return {
    url,
    port,
    async kill(what, awayMs) {
      const engine = engineOf(broker.pid);
      if (what === "engine") {
        // Its own process starts it again.
        if (engine !== null) process.kill(engine, "SIGKILL");
        return answers(url);
      }
      process.kill(what === "machine" ? -broker.pid : broker.pid, "SIGKILL");
      await broker.done;
      await new Promise((resolve) => setTimeout(resolve, awayMs));
      broker = await start();
      await answers(url);
    },
    engineBytes() {
      const engine = engineOf(broker.pid);
      return engine === null ? 0 : residentBytes(engine);
    },
    stop: () => broker.stop(),
  };
}

/** The port of a server that answers is bound anew by its successor even when connections of it are still being closed. */
async function freePort(random: Random): Promise<number> {
  for (let tries = 0; tries < 100; tries += 1) {
    const port = random.between(20_000, 32_000);
    const isFree = await new Promise<boolean>((resolve) => {
      const server = createServer().once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
    });
    if (isFree) return port;
  }
  throw new Error("no port is free");
}

async function answers(url: string): Promise<void> {
  for (const endsAt = Date.now() + 20_000; ; await new Promise((resolve) => setTimeout(resolve, 25))) {
    const answer = await fetch(`${url}/healthz`, { signal: AbortSignal.timeout(2_000) }).catch(() => null);
    if (answer?.status === 200) return;
    if (Date.now() > endsAt) throw new Error(`no broker at ${url}`);
  }
}

/** The workerd that a process started. */
function engineOf(parent: number): number | null {
  const found = readdirSync("/proc").find((name) => {
    if (!/^\d+$/.test(name)) return false;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "utf8");
      const [state, parentPid] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return Number(parentPid) === parent && state !== "Z" && stat.includes("(workerd)");
    } catch {
      return false;
    }
  });
  return found === undefined ? null : Number(found);
}

function residentBytes(pid: number): number {
  try {
    return 1024 * Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0);
  } catch {
    return 0;
  }
}
