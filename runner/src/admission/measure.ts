import { readdirSync, readFileSync } from "node:fs";

/**
 * Memory of each of these processes with all its descendants, bytes: what is theirs alone (`RssAnon` and `RssShmem` of proc(5)), because the
 * pages of programs and files are shared and can be dropped. Every level of isolation is seen, with and without a memory controller; a daemon that
 * left its parent is not, nor what Nix's own daemon builds. Zero where there is no `/proc`.
 */
export function memoryOfTrees(roots: readonly number[]): Map<number, number> {
  const processes = readProcesses();
  const children = Map.groupBy(processes, ({ parent }) => parent);
  const own = new Map(processes.map(({ pid, bytes }) => [pid, bytes]));
  return new Map(
    roots.map((root) => {
      let bytes = 0;
      const left = [root];
      for (let pid = left.pop(); pid !== undefined; pid = left.pop()) {
        bytes += own.get(pid) ?? 0;
        for (const child of children.get(pid) ?? []) left.push(child.pid);
      }
      return [root, bytes];
    }),
  );
}

function readProcesses(): { pid: number; parent: number; bytes: number }[] {
  const names = listFolder("/proc").filter((name) => /^\d+$/.test(name));
  return names.flatMap((name) => {
    try {
      const status = readFileSync(`/proc/${name}/status`, "utf8");
      const kib = (field: string): number => Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(status)?.[1] ?? 0);
      const parent = Number(/^PPid:\s+(\d+)$/m.exec(status)?.[1] ?? 0);
      return [{ pid: Number(name), parent, bytes: (kib("RssAnon") + kib("RssShmem")) * 1024 }];
    } catch {
      // It ended while it was looked at.
      return [];
    }
  });
}

function listFolder(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
