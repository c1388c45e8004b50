import { readFileSync } from "node:fs";
import { execFileSync } from "node:child_process";

/** What a supervisor calls itself: the other processes below a runner are those of jobs. */
const SUPERVISOR = "plumule supervisor";

/** Clock ticks of `/proc` in a second. */
const TICKS = Number(execFileSync("getconf", ["CLK_TCK"], { encoding: "utf8" }));

/** Memory of some processes, bytes: what is theirs alone (`RssAnon` and `RssShmem` of proc(5)), as the runner counts that of its runs. None of one that has ended. */
export function readMemory(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    const status = read(`/proc/${pid}/status`);
    const kib = (field: string): number => Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(status)?.[1] ?? 0);
    return sum + (kib("RssAnon") + kib("RssShmem")) * 1024;
  }, 0);
}

/** Processor time that some processes have taken, with that of children that have ended, ms. */
export function readCpuMs(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    const stat = read(`/proc/${pid}/stat`);
    // proc(5): fields 14 to 17 are utime, stime, cutime and cstime; the name before them may hold anything.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const ticks = fields.slice(11, 15).reduce((all, one) => all + Number(one), 0);
    return sum + (ticks / TICKS) * 1_000;
  }, 0);
}

/** A runner and the supervisors that it has started. */
export function runnerProcesses(runnerPid: number): number[] {
  const children = read(`/proc/${runnerPid}/task/${runnerPid}/children`).trim().split(" ").map(Number);
  return [runnerPid, ...children.filter((pid) => read(`/proc/${pid}/cmdline`).startsWith(SUPERVISOR))];
}

/** A file of `/proc`; empty when its process has ended. */
function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
