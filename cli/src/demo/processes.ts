import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** A live process. `startedAt` is in clock ticks since the boot: with it a number that was given out again is another process. */
export type Process = { pid: number; parent: number; startedAt: string; command: string };

/**
 * Live processes whose arguments, environment or folder mention a text, and everything that they started. Reads proc(5); without it (not
 * Linux) null, because nothing can be said.
 */
export function findProcesses(text: string): Process[] | null {
  const all = listProcesses();
  if (all === null) return null;
  const found = new Set(all.filter(({ pid }) => pid !== process.pid && mentions(pid, text)));
  for (let size = -1; size !== found.size;) {
    size = found.size;
    const pids = new Set([...found].map(({ pid }) => pid));
    for (const one of all) if (pids.has(one.parent)) found.add(one);
  }
  return [...found];
}

/** Those of the processes that are still alive. */
export function stillAlive(processes: readonly Process[]): Process[] {
  const now = new Map((listProcesses() ?? []).map((one) => [one.pid, one]));
  return processes.filter(({ pid, startedAt }) => now.get(pid)?.startedAt === startedAt);
}

function listProcesses(): Process[] | null {
  try {
    return readdirSync("/proc")
      .map(Number)
      .filter(Number.isInteger)
      .flatMap((pid) => readProcess(pid) ?? []);
  } catch {
    return null;
  }
}

function readProcess(pid: number): Process | null {
  const stat = read(`/proc/${pid}/stat`);
  if (stat === null) return null;
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [state, parent] = fields;
  // A zombie runs nothing; it stays listed until its parent asks how it ended.
  if (state === "Z" || state === "X") return null;
  const command = (read(`/proc/${pid}/cmdline`) ?? "").split("\0").join(" ").trim();
  return { pid, parent: Number(parent), startedAt: fields[19] ?? "", command };
}

function mentions(pid: number, text: string): boolean {
  const links = [`/proc/${pid}/cwd`, `/proc/${pid}/exe`].map((path) => {
    try {
      return readlinkSync(path);
    } catch {
      return "";
    }
  });
  return [read(`/proc/${pid}/cmdline`), read(`/proc/${pid}/environ`), ...links].some((place) => place?.includes(text));
}

function read(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}
