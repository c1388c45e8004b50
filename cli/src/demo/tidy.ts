import { existsSync } from "node:fs";
import { chmod, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { findProcesses, type Process } from "./processes.ts";

/**
 * Ends every process that has to do with the folder, after `graceMs` in which they may end by themselves. Answers those that had to be
 * killed; null where the system does not tell.
 */
export async function endProcesses(folder: string, graceMs: number): Promise<Process[] | null> {
  const deadline = performance.now() + graceMs;
  let left = findProcesses(folder);
  while (left !== null && left.length > 0 && performance.now() < deadline) {
    await pause(50);
    left = findProcesses(folder);
  }
  for (const { pid } of left ?? []) kill(pid);
  return left;
}

/** Removes a folder with everything in it, also what Nix has made read-only. Rejects when something of it stays. */
export async function removeFolder(folder: string): Promise<void> {
  await makeRemovable(folder);
  await rm(folder, { recursive: true, force: true, maxRetries: 3 });
  if (existsSync(folder)) throw new Error(`${folder} could not be removed`);
}

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
