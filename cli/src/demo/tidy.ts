import { existsSync } from "node:fs";
import { chmod, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { findProcesses, type Process } from "./processes.ts";

/** How long processes that were told to end may take, ms. */
const END_MS = 2_000;

/**
 * Removes everything of the demo: processes that have to do with its folder, then the folder. Answers the processes that had to be killed,
 * which is none after a demo that went well; null where the system does not tell.
 */
export async function tidyUp(folder: string): Promise<Process[] | null> {
  const deadline = performance.now() + END_MS;
  let left = findProcesses(folder);
  while (left !== null && left.length > 0 && performance.now() < deadline) {
    await pause(50);
    left = findProcesses(folder);
  }
  for (const { pid } of left ?? []) kill(pid);
  await makeRemovable(folder);
  await rm(folder, { recursive: true, force: true, maxRetries: 3 });
  if (existsSync(folder)) throw new Error(`${folder} could not be removed`);
  return left;
}

/** Nix makes what it has built read-only, folders too. */
async function makeRemovable(folder: string): Promise<void> {
  await chmod(folder, 0o700).catch(() => {});
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  for (const entry of entries) if (entry.isDirectory()) await makeRemovable(join(folder, entry.name));
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has just ended by itself.
  }
}
