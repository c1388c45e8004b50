import { readFileSync } from "node:fs";
import { mkdir, open, readFile, rm } from "node:fs/promises";
import { join } from "node:path";

/** The right to use a state folder: two engines on the same databases would destroy them. */
export type StateLock = { release(): Promise<void> };

/**
 * Locks a state folder, which is made private to the user, for this process. A lock whose process is gone is taken over, also when
 * another process has got its number since.
 */
export async function lockState(folder: string): Promise<StateLock | { refused: string }> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const path = join(folder, "lock");
  for (const _ of ["first", "after a stale lock was removed"]) {
    const file = await open(path, "wx", 0o600).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "EEXIST") return null;
      throw error;
    });
    if (file !== null) {
      await file.writeFile(identityOf(process.pid) ?? String(process.pid));
      await file.close();
      return { release: () => rm(path, { force: true }) };
    }
    const holder = await readFile(path, "utf8").catch(() => "");
    const pid = Number.parseInt(holder, 10);
    if (holder !== "" && identityOf(pid) === holder)
      return { refused: `${folder} is in use by process ${pid}: stop it, or choose another folder with --state.` };
    await rm(path, { force: true });
  }
  return { refused: `${folder} is being taken by another process at this moment.` };
}

/**
 * The number of a live process and, where the system tells, when it started (proc(5), field 22 of `stat`): numbers are given out again. A
 * zombie is not alive; it may stay for ever where nobody asks how it ended.
 */
function identityOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" || fields[0] === "X" ? null : `${pid} ${fields[19]}`;
  } catch {
    // No such process, or a system without /proc.
  }
  try {
    process.kill(pid, 0);
    return String(pid);
  } catch {
    return null;
  }
}
