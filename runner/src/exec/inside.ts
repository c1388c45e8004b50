import { accessSync, constants, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { identityOf } from "../process-identity.ts";
import { findTracked } from "../process-tree.ts";

/** How to get to where the processes of a run are: words before a command line (none where it is here), and the cgroups that count them. */
export type Inside = { enter: string[]; joins: string[] };

/** The namespaces of a process, with the option of nsenter(1) for each. */
const NAMESPACES = { user: "-U", mnt: "-m", pid: "-p", net: "-n", ipc: "-i", uts: "-u", cgroup: "-C" } as const;

/** Where a run works at this moment; null when it has no process, because it has just begun or ended. */
export function insideOf(run: string): Inside | null {
  const pids = findTracked(run);
  // The first process of a namespace stays as long as the namespace does.
  const pid = pids.find(isInit) ?? oldestOf(pids);
  if (pid === undefined) return null;
  const kinds = Object.entries(NAMESPACES).filter(([kind]) => isElsewhere(pid, kind));
  const options = kinds.map(([, option]) => option);
  const credentials = options.includes("-U") ? ["--preserve-credentials"] : [];
  const enter = options.length === 0 ? [] : ["nsenter", "-t", String(pid), ...options, ...credentials, "--wd", "--"];
  return { enter, joins: cgroupOf(pid) };
}

/** One that started last may be gone before it is entered. */
function oldestOf(pids: readonly number[]): number | undefined {
  const alive = pids.flatMap((pid) => identityOf(pid) ?? []);
  return alive.toSorted((a, b) => Number(a.startedAt) - Number(b.startedAt))[0]?.pid;
}

function isElsewhere(pid: number, kind: string): boolean {
  try {
    return readlinkSync(`/proc/${pid}/ns/${kind}`) !== readlinkSync(`/proc/self/ns/${kind}`);
  } catch {
    return false;
  }
}

/** `NSpid` of proc(5) `status` ends with the number that the process has in its own namespace. */
function isInit(pid: number): boolean {
  try {
    return /^NSpid:.*\s1$/m.test(readFileSync(`/proc/${pid}/status`, "utf8")) && isElsewhere(pid, "pid");
  } catch {
    return false;
  }
}

/** The cgroup v2 of a process as somewhere to join, unless it is this one's, or another user's. */
function cgroupOf(pid: number): string[] {
  try {
    const [theirs, own] = [`/proc/${pid}/cgroup`, "/proc/self/cgroup"].map((path) =>
      readFileSync(path, "utf8").match(/^0::(.*)$/m),
    );
    const mount = /^\S+ \S+ \S+ \S+ (\S+) .* - cgroup2 /m.exec(readFileSync("/proc/self/mountinfo", "utf8"))?.[1];
    if (theirs?.[1] === undefined || theirs[1] === own?.[1] || mount === undefined) return [];
    const procs = join(mount, theirs[1], "cgroup.procs");
    accessSync(procs, constants.W_OK);
    return [procs];
  } catch {
    return [];
  }
}
