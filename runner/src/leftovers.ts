import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { cgroupMembers, cgroupsOf, removeCgroup } from "./cgroup.ts";
import type { Supervisor } from "./core/model.ts";
import { isAlive } from "./process-identity.ts";
import { findTracked, runningMembers } from "./process-tree.ts";

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
    const left = new Set([...findTracked(run), ...cgroups.flatMap(runningMembers)]);
    for (const pid of left) send(pid);
    const isGone = left.size === 0 && (supervisor === null || !isAlive(supervisor)) && cgroups.length === 0;
    if (isGone || performance.now() > deadline) return left.size;
  }
}

/** Kills what is in a cgroup, and removes it once it is empty: busy until its processes are reaped, so that the next look finds it again. */
function empty(cgroup: string): void {
  try {
    writeFileSync(join(cgroup, "cgroup.kill"), "1", { flag: "r+" });
  } catch {
    // Version 1 has none.
    for (const pid of cgroupMembers(cgroup)) send(pid);
  }
  removeCgroup(cgroup);
}

function send(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // Gone, which is what was wanted.
  }
}
