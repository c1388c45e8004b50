import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, rename, stat, statfs, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { lockFolder, whileLocked } from "../folder-lock.ts";
import { removeFolder } from "../remove-folder.ts";
import { dropCheckout } from "./checkout.ts";
import { readJson, readRecords, type SlotRecord, warmFolders } from "./records.ts";

/** What may be kept warm, and where. */
export interface WarmQuota {
  mirrors: string;
  warm: string;
  /** Most bytes of mirrors, warm checkouts and setup layers together. */
  quotaBytes: number;
  /** Bytes that stay free on their disk. */
  floorBytes: number;
}

/** What was removed. */
export interface Collected {
  removedCount: number;
  removedBytes: number;
}

/** Something that is kept to be used again. */
interface Kept {
  kind: "slot" | "setup" | "mirror";
  path: string;
  usedAtMs: number;
  bytes: number;
}

/** What is removed lies under such a name before, so that nobody finds half of it. */
const TRASH = "trash-";

const run = promisify(execFile);

/** What is kept has to be measured, which takes long on a large disk: so often at most, ms, while there is room. */
const LOOK_MS = 10 * 60_000;

/** Calls {@link collectWarm} when the last call is some time ago or the disk is full. */
export async function collectSometimes(quota: WarmQuota): Promise<void> {
  await mkdir(quota.warm, { recursive: true, mode: 0o700 });
  const stamp = join(quota.warm, "collected");
  const status = await stat(stamp).catch(() => null);
  const isRecent = status !== null && Math.abs(Date.now() - status.mtimeMs) < LOOK_MS;
  if (isRecent && (await freeBytes(quota.warm)) >= quota.floorBytes) return;
  await collectWarm(quota);
  await writeFile(stamp, "");
}

/**
 * Removes what was used longest ago until quota and floor are kept; what a workspace uses stays, and a mirror stays while a checkout borrows from it.
 * What crashes left goes first. One process at a time does so; another's call finds nothing to do.
 */
export async function collectWarm(quota: WarmQuota): Promise<Collected> {
  const lock = await lockFolder(join(quota.warm, "collecting"), "removing what is kept too long");
  if (!("release" in lock)) return { removedCount: 0, removedBytes: 0 };
  try {
    await dropLeft(quota.warm);
    const kept = (await listKept(quota)).toSorted((a, b) => a.usedAtMs - b.usedAtMs);
    let total = kept.reduce((sum, { bytes }) => sum + bytes, 0);
    const collected = { removedCount: 0, removedBytes: 0 };
    for (const one of kept) {
      if (total <= quota.quotaBytes && (await freeBytes(quota.warm)) >= quota.floorBytes) break;
      if (!(await removeUnused(quota, one))) continue;
      total -= one.bytes;
      collected.removedCount += 1;
      collected.removedBytes += one.bytes;
    }
    return collected;
  } finally {
    await lock.release();
  }
}

/** Takes down checkouts whose workspace has gone, and finishes removals that a crash broke off. */
async function dropLeft(warm: string): Promise<void> {
  for (const [id, { folder }] of await readRecords(warm)) if (!existsSync(folder)) await dropCheckout(warm, id);
  for (const name of await namesIn(warm)) if (name.startsWith(TRASH)) await removeFolder(join(warm, name));
}

async function listKept({ mirrors, warm }: WarmQuota): Promise<Kept[]> {
  const { setups } = warmFolders(warm);
  const found: Omit<Kept, "bytes">[] = [];
  const add = async (kind: Kept["kind"], path: string, used = path): Promise<void> => {
    const status = await stat(used).catch(() => null);
    if (status !== null) found.push({ kind, path, usedAtMs: status.mtimeMs });
  };
  for (const slot of await listSlots(warm)) await add("slot", slot, join(slot, "slot.json"));
  for (const digest of await namesIn(setups)) await add("setup", join(setups, digest));
  for (const name of await namesIn(mirrors)) await add("mirror", join(mirrors, name));
  const used = new Map(found.map(({ path, usedAtMs }) => [path, usedAtMs]));
  for (const slot of await listSlots(warm))
    for (const mirror of await borrowedBy(slot)) {
      const one = found.find(({ path }) => path === mirror);
      // It was used whenever a checkout was that borrows from it, and goes after that.
      if (one !== undefined) one.usedAtMs = Math.max(one.usedAtMs, (used.get(slot) ?? 0) + 1);
    }
  const sizes = await Promise.all(found.map(({ path }) => sizeOf(path)));
  return found.map((one, index) => ({ ...one, bytes: sizes[index] ?? 0 }));
}

/** Under the lock by which it would be taken, and after another look whether it was. */
async function removeUnused(quota: WarmQuota, { kind, path }: Kept): Promise<boolean> {
  const { records } = warmFolders(quota.warm);
  const lock = kind === "slot" ? dirname(path) : kind === "setup" ? path : join(records, "lock");
  const trash = join(quota.warm, `${TRASH}${randomUUID()}`);
  const isMoved = await whileLocked(lock, "removing what is kept too long", async () => {
    if (await isUsed(quota, kind, path)) return false;
    await rename(path, trash);
    return true;
  });
  return isMoved && removeFolder(trash);
}

async function isUsed({ warm }: WarmQuota, kind: Kept["kind"], path: string): Promise<boolean> {
  const used = [...(await readRecords(warm)).values()];
  if (kind === "slot") return used.some(({ slot }) => slot === path);
  if (kind === "setup") return used.some(({ setup }) => setup !== null && dirname(setup) === path);
  if (used.some(({ mirrors }) => mirrors.includes(path))) return true;
  for (const slot of await listSlots(warm)) if ((await borrowedBy(slot)).includes(path)) return true;
  return false;
}

async function listSlots(warm: string): Promise<string[]> {
  const { slots } = warmFolders(warm);
  const found: string[] = [];
  for (const kind of await namesIn(slots))
    for (const name of await namesIn(join(slots, kind)))
      if (!name.startsWith("lock")) found.push(join(slots, kind, name));
  return found;
}

/** The mirrors of a warm checkout. */
async function borrowedBy(slot: string): Promise<string[]> {
  return (await readJson<SlotRecord>(join(slot, "slot.json")))?.parts?.map(({ mirror }) => mirror) ?? [];
}

/** Bytes on the disk, as `du` counts them; files that several share count once. */
async function sizeOf(path: string): Promise<number> {
  const told = await run("du", ["-sk", "--", path]).catch((error: { stdout?: string }) => error);
  return Number.parseInt(told.stdout ?? "", 10) * 1024 || 0;
}

async function freeBytes(folder: string): Promise<number> {
  const status = await statfs(folder);
  return status.bavail * status.bsize;
}

async function namesIn(folder: string): Promise<string[]> {
  return readdir(folder).catch(() => []);
}
