import { randomUUID } from "node:crypto";
import { link, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { identityOf } from "./process-identity.ts";

/** The right to use a state folder: two processes at work on the same files would destroy them. */
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
      await file.writeFile(nameOf(process.pid) ?? String(process.pid));
      await file.close();
      return { release: () => rm(path, { force: true }) };
    }
    const holder = await readFile(path, "utf8").catch(() => "");
    const pid = Number.parseInt(holder, 10);
    if (holder !== "" && nameOf(pid) === holder)
      return { refused: `${folder} is in use by process ${pid}: stop it, or choose another folder with --state.` };
    await removeStale(path, holder);
  }
  return { refused: `${folder} is being taken by another process at this moment.` };
}

/** Removes a lock that says `stale`. Another process may have done so and taken the folder: its lock is put back. */
async function removeStale(path: string, stale: string): Promise<void> {
  const aside = `${path}.${randomUUID()}`;
  const moved = await rename(path, aside).then(
    () => true,
    () => false,
  );
  if (!moved) return;
  if ((await readFile(aside, "utf8")) !== stale) await link(aside, path).catch(() => {});
  await rm(aside, { force: true });
}

/** What the lock of a live process says: its number and when it started. */
function nameOf(pid: number): string | null {
  const identity = Number.isInteger(pid) && pid > 0 ? identityOf(pid) : null;
  return identity === null ? null : `${identity.pid} ${identity.startedAt}`;
}
