import { randomUUID } from "node:crypto";
import { link, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { identityOf } from "./process-identity.ts";

/** The right to use a folder, until it is given back or the process ends. */
export type FolderLock = { release(): Promise<void> };

/** Who has a folder: a process, and what for. The number is 0 in the moment in which somebody takes it. */
export type LockHolder = { pid: number; purpose: string };

/** How often a lock that is waited for is tried, ms. */
const LOOK_MS = 10;

/**
 * Locks a folder, which is made private to the user, for this process; `purpose` is for those who find it taken, in one line. A lock whose process
 * is gone is taken over, also when another process has got its number since.
 */
export async function lockFolder(folder: string, purpose: string): Promise<FolderLock | LockHolder> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const path = join(folder, "lock");
  const own = `${nameOf(process.pid) ?? process.pid}\n${purpose}`;
  for (const _ of ["first", "after a stale lock was removed"]) {
    if (await takeFile(path, own)) return { release: () => rm(path, { force: true }) };
    const holder = await holderOf(path);
    if (holder !== null && holder !== "gone") return holder;
    if (holder === "gone") await removeStale(path, own);
  }
  return { pid: 0, purpose: "" };
}

/** Does some work while this process has a folder, and waits for it before that. Rejects when the signal is aborted first. */
export async function whileLocked<T>(
  folder: string,
  purpose: string,
  work: () => Promise<T>,
  cancel?: AbortSignal,
): Promise<T> {
  for (;;) {
    const lock = await lockFolder(folder, purpose);
    if (!("release" in lock)) {
      cancel?.throwIfAborted();
      await pause(LOOK_MS);
      continue;
    }
    try {
      return await work();
    } finally {
      await lock.release();
    }
  }
}

/** Makes a file that is whole as soon as it is there; false when there is one. */
async function takeFile(path: string, content: string): Promise<boolean> {
  const unfinished = `${path}.${randomUUID()}`;
  await writeFile(unfinished, content, { mode: 0o600 });
  try {
    await link(unfinished, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    return false;
  } finally {
    await rm(unfinished, { force: true });
  }
}

/** Who has a lock: `gone` when its process is, null when nobody has it. */
async function holderOf(path: string): Promise<LockHolder | "gone" | null> {
  const content = await readFile(path, "utf8").catch(() => null);
  if (content === null) return null;
  const [name = "", purpose = ""] = content.split("\n");
  const pid = Number.parseInt(name, 10);
  return name !== "" && nameOf(pid) === name ? { pid, purpose } : "gone";
}

/**
 * Removes the lock of a process that is gone, one process at a time. Nobody replaces such a lock before it is removed, so that it cannot be another's by
 * then; one that is not there is left to whoever takes it at this moment.
 */
async function removeStale(path: string, own: string): Promise<void> {
  const guard = `${path}.guard`;
  if (!(await takeFile(guard, own))) {
    if ((await holderOf(guard)) === "gone") await rm(guard, { force: true });
    return;
  }
  if ((await holderOf(path)) === "gone") await rm(path, { force: true });
  await rm(guard, { force: true });
}

/** What the lock of a live process says first: its number and when it started. */
function nameOf(pid: number): string | null {
  const identity = Number.isInteger(pid) && pid > 0 ? identityOf(pid) : null;
  return identity === null ? null : `${identity.pid} ${identity.startedAt}`;
}
