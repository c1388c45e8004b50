import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

/** A process that cannot be taken for another: numbers are given out again, within one life of the machine and in the next. */
export type ProcessIdentity = { pid: number; startedAt: string; boot: string };

/** Milliseconds of a clock that all processes of this machine share (CLOCK_MONOTONIC) and that nobody sets. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1_000_000n);
}

/** Names this life of the machine: the monotonic clock begins anew with it. Empty where the system has no name for it. */
export function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return "";
  }
}

/** The identity of a live process; null when there is none. A zombie is not alive: it may stay for ever where nobody asks how it ended. */
export function identityOf(pid: number): ProcessIdentity | null {
  const startedAt = startOf(pid);
  return startedAt === null ? null : { pid, startedAt, boot: bootId() };
}

/** Whether the very process that this identity names is alive. */
export function isAlive(identity: ProcessIdentity): boolean {
  const now = identityOf(identity.pid);
  return now !== null && now.startedAt === identity.startedAt && now.boot === identity.boot;
}

/** When a process started, in the system's own words: proc(5), field 22 of `stat`, or what `ps` says. */
function startOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" || fields[0] === "X" ? null : (fields[19] ?? null);
  } catch (error) {
    if (process.platform === "linux" && (error as NodeJS.ErrnoException).code !== "EACCES") return null;
  }
  try {
    return execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8" }).trim() || null;
  } catch {
    return null;
  }
}
