import { rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import type { Supervisor } from "./core/model.ts";
import { cgroupsOf } from "./isolation.ts";
import { isAlive } from "./process-identity.ts";
import { findTracked } from "./process-tree.ts";

/** How long killed processes may take to vanish, ms. */
const VANISH_MS = 2_000;
const LOOK_MS = 10;

/**
 * Kills a supervisor and everything that its run left. In a namespace the kernel takes the job along with its supervisor; what it does not reach
 * is found by cgroup and tracking id. Answers how many processes were still alive after all that.
 */
export async function killRun(run: string, supervisor: Supervisor | null): Promise<number> {
  if (supervisor !== null && isAlive(supervisor)) send(supervisor.pid);
  for (const deadline = performance.now() + VANISH_MS; ; await pause(LOOK_MS)) {
    const cgroups = cgroupsOf(run);
    for (const cgroup of cgroups) empty(cgroup);
    const left = findTracked(run);
    for (const pid of left) send(pid);
    const isGone = left.length === 0 && (supervisor === null || !isAlive(supervisor)) && cgroups.length === 0;
    if (isGone || performance.now() > deadline) return left.length;
  }
}

/** Kills what is in a cgroup, and removes it once it is empty. */
function empty(cgroup: string): void {
  try {
    writeFileSync(join(cgroup, "cgroup.kill"), "1");
    rmdirSync(cgroup);
  } catch {
    // Busy until its processes are reaped; the next look finds it again.
  }
}

function send(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // Gone, which is what was wanted.
  }
}
