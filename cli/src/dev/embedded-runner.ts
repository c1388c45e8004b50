import { fileURLToPath } from "node:url";
import type { RunnerOptions } from "@plumule/runner";
import { startChild } from "./child.ts";

/** A runner in a process of its own. */
export type EmbeddedRunner = {
  /** Its did:key. */
  id: string;
  pid: number;
  /** Its exit code; 137 when it was killed. */
  done: Promise<number>;
  /** Ends it: its runs get `graceMs` (less when `hurry` aborts) to stop and go back to the queue, then they are killed with it. */
  stop(graceMs: number, hurry: AbortSignal): Promise<void>;
};

const module = fileURLToPath(new URL("./runner-child.ts", import.meta.url));
/** What a runner takes to leave when it waits for nothing. */
const LEAVE_MS = 1_000;

/** Starts a runner and waits until it polls. `say` gets its lines. A refusal is a sentence for a person. */
export async function startEmbeddedRunner(
  options: RunnerOptions,
  say: (line: string) => void,
): Promise<EmbeddedRunner | { refused: string }> {
  const child = await startChild<RunnerOptions, string>(module, options, say);
  if ("refused" in child) return child;
  const { pid, started: id, done } = child;
  return {
    id,
    pid,
    done,
    async stop(graceMs, hurry) {
      // No new work, then no old work: what it runs begins again elsewhere or later.
      child.stop();
      child.stop();
      if (await child.hasEnded(graceMs, hurry)) return;
      child.stop();
      if (!(await child.hasEnded(LEAVE_MS))) await child.kill();
    },
  };
}
