import { spawn } from "node:child_process";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { SourceChange } from "./platform/modules.ts";
import type { PlatformBug } from "./platform/world.ts";
import type { Outcome } from "./simulate.ts";

/** Seeds that one process simulates. Then a fresh one goes on, because the edge remembers callers and places of jobs for as long as it lives. */
const SEEDS_PER_PROCESS = 200;

/** What is simulated otherwise than it is: bugs that a test seeds. */
export type Seeded = { changes?: readonly SourceChange[]; bug?: PlatformBug };

/** Simulates a row of seeds in one process. `onOutcome` gets each as it ends, and says whether to go on. */
export function simulateRow(
  from: number,
  count: number,
  seeded: Seeded,
  onOutcome: (outcome: Outcome) => boolean,
): Promise<void> {
  // Each processor has a process already: threads that collect garbage and compile beside it would only take its time.
  const flags = [
    "--max-semi-space-size=64",
    "--single-threaded-gc",
    "--always-sparkplug",
    "--disable-warning=ExperimentalWarning",
  ];
  const args = ["--from", String(from), "--count", String(count), "--changes", JSON.stringify(seeded.changes ?? [])];
  if (seeded.bug !== undefined && seeded.bug !== null) args.push("--bug", seeded.bug);
  const child = spawn(process.execPath, [...flags, join(import.meta.dirname, "worker.ts"), ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let goesOn = true;
  let told = 0;
  createInterface({ input: child.stdout }).on("line", (line) => {
    if (!goesOn) return;
    told += 1;
    goesOn = onOutcome(JSON.parse(line) as Outcome);
    if (!goesOn) child.kill();
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => {
      if (goesOn && (code !== 0 || told !== count))
        reject(new Error(`the process that simulated seeds from ${from} ended with ${code} after ${told} of ${count}`));
      else resolve();
    });
  });
}

/** Simulates seeds in as many processes as there are processors, and stops at the first that `onOutcome` wants no more of. */
export async function simulateMany(
  from: number,
  count: number,
  seeded: Seeded,
  onOutcome: (outcome: Outcome) => boolean,
): Promise<void> {
  let next = from;
  let goesOn = true;
  const work = async (): Promise<void> => {
    while (goesOn && next < from + count) {
      const first = next;
      const size = Math.min(SEEDS_PER_PROCESS, from + count - first);
      next += size;
      await simulateRow(first, size, seeded, (outcome) => {
        if (goesOn) goesOn = onOutcome(outcome);
        return goesOn;
      });
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, work));
}
