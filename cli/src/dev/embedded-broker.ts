import { fileURLToPath } from "node:url";
import { startChild } from "./child.ts";
import type { EngineOptions } from "./engine.ts";

/** A broker at work on this machine. */
export type EmbeddedBroker = {
  url: string;
  port: number;
  pid: number;
  /** Its exit code. */
  done: Promise<number>;
  /** Ends it and every process of it within about two seconds; its state stays. */
  stop(): Promise<void>;
};

const module = fileURLToPath(new URL("./broker-child.ts", import.meta.url));
const STOP_MS = 2_000;

/** Starts a broker as a process of its own. A refusal is one sentence for the person at the terminal. `say` gets what the Worker prints. */
export async function startEmbeddedBroker(
  options: EngineOptions,
  say: (line: string) => void = () => {},
): Promise<EmbeddedBroker | { refused: string }> {
  const child = await startChild<EngineOptions, { url: string; port: number }>(module, options, say);
  if ("refused" in child) return child;
  const { pid, started, done } = child;
  return {
    ...started,
    pid,
    done,
    async stop() {
      child.stop();
      if (!(await child.hasEnded(STOP_MS))) await child.kill();
    },
  };
}
