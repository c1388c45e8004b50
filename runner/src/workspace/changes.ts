import type { Dirent, Stats } from "node:fs";
import { lstat, open, readdir, readlink } from "node:fs/promises";
import { join } from "node:path";
import { LIMITS } from "@plumule/protocol";
import { isWhiteout } from "./overlay.ts";
import type { Change } from "./provider.ts";

/** Where the writes of an overlay are, and what they are compared with. */
export interface OverlayView {
  /** The upper folder. */
  upper: string;
  /** What lies below it, uppermost first. None of them hides anything of another. */
  lowers: readonly string[];
  /** What a command sees, which alone shows whether a folder that was made anew hides the old one. */
  merged: string;
}

/** Too many changes to be listed. */
export class TooManyChanges extends Error {}

/** Everything that differs between what an overlay shows and what lies below it. It costs what was written, not what there is. Rejects with {@link TooManyChanges}. */
export async function overlayChanges(view: OverlayView, isHidden: (path: string) => boolean): Promise<Change[]> {
  const found = listOf(isHidden);
  await compareFolder(view, "", found);
  return found.sorted();
}

/** Everything that differs between two folders, for trees that commands wrote to themselves. `isSkipped` is true for what is not to be compared. */
export async function folderChanges(
  before: string | null,
  after: string,
  isSkipped: (path: string) => boolean,
): Promise<Change[]> {
  const found = listOf(isSkipped);
  const compare = async (path: string, isNew: boolean): Promise<void> => {
    const [old, now] = await Promise.all([
      entriesOf(before === null ? null : join(before, path)),
      entriesOf(join(after, path)),
    ]);
    for (const [name, entry] of old)
      if (!now.has(name)) await addAll(join(before ?? "", path, name), entry, joined(path, name), "deleted", found);
    for (const [name, entry] of now) {
      const at = joined(path, name);
      const earlier = old.get(name);
      if (isSkipped(at)) continue;
      if (earlier !== undefined && earlier.isDirectory() !== entry.isDirectory())
        await addAll(join(before ?? "", at), earlier, at, "deleted", found);
      if (entry.isDirectory()) await compare(at, earlier?.isDirectory() !== true);
      else if (earlier === undefined || earlier.isDirectory()) found.add(at, "added", kindOf(entry));
      else await compareEntry(join(before ?? "", at), earlier, join(after, at), entry, at, found);
    }
    if (isNew && now.size === 0) found.add(path, "added", "folder");
  };
  await compare("", false);
  return found.sorted();
}

interface ChangeList {
  add(path: string, change: Change["change"], kind: Change["kind"]): void;
  isHidden(path: string): boolean;
  sorted(): Change[];
}

function listOf(isHidden: (path: string) => boolean): ChangeList {
  const changes: Change[] = [];
  return {
    isHidden,
    add(path, change, kind) {
      if (isHidden(path)) return;
      if (changes.length >= LIMITS.workspaceChanges) throw new TooManyChanges();
      changes.push({ path, change, kind });
    },
    sorted: () => changes.toSorted((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0)),
  };
}

async function compareFolder(view: OverlayView, path: string, found: ChangeList): Promise<void> {
  const upper = await entriesOf(join(view.upper, path));
  const lower = new Map<string, { entry: Dirent; path: string }>();
  for (const folder of view.lowers.toReversed())
    for (const [name, entry] of await entriesOf(join(folder, path)))
      lower.set(name, { entry, path: join(folder, path, name) });
  const merged = await entriesOf(join(view.merged, path));
  for (const [name, { entry }] of lower)
    if (!merged.has(name)) await addLower(view.lowers, entry, joined(path, name), found);
  for (const [name, entry] of upper) {
    const at = joined(path, name);
    if (found.isHidden(at) || (entry.isCharacterDevice() && isWhiteout(await lstat(join(view.upper, at))))) continue;
    const below = lower.get(name);
    if (below === undefined) await addAll(join(view.upper, at), entry, at, "added", found);
    else if (entry.isDirectory() && below.entry.isDirectory()) await compareFolder(view, at, found);
    else if (below.entry.isDirectory()) {
      await addLower(view.lowers, below.entry, at, found);
      await addAll(join(view.upper, at), entry, at, "added", found);
    } else await compareEntry(below.path, below.entry, join(view.upper, at), entry, at, found);
  }
}

async function compareEntry(
  before: string,
  old: Dirent,
  after: string,
  now: Dirent,
  path: string,
  found: ChangeList,
): Promise<void> {
  if (kindOf(old) === kindOf(now)) {
    if (!(await isSame(before, after, kindOf(now)))) found.add(path, "modified", kindOf(now));
    return;
  }
  await addAll(before, old, path, "deleted", found);
  await addAll(after, now, path, "added", found);
}

/** What lies below the overlay at a path, in whichever of its folders. */
async function addLower(lowers: readonly string[], entry: Dirent, path: string, found: ChangeList): Promise<void> {
  if (!entry.isDirectory()) return found.add(path, "deleted", kindOf(entry));
  const names = new Map<string, Dirent>();
  for (const folder of lowers) for (const [name, below] of await entriesOf(join(folder, path))) names.set(name, below);
  if (names.size === 0) found.add(path, "deleted", "folder");
  for (const [name, below] of names) await addLower(lowers, below, joined(path, name), found);
}

/** An entry with everything in it; of folders only the empty ones. */
async function addAll(
  at: string,
  entry: Dirent,
  path: string,
  change: Change["change"],
  found: ChangeList,
): Promise<void> {
  if (!entry.isDirectory()) return found.add(path, change, kindOf(entry));
  if (found.isHidden(path)) return;
  const entries = await entriesOf(at);
  if (entries.size === 0) found.add(path, change, "folder");
  for (const [name, below] of entries) await addAll(join(at, name), below, joined(path, name), change, found);
}

/** A file that was opened for writing, or given the rights that it had, is no change. */
async function isSame(before: string, after: string, kind: Change["kind"]): Promise<boolean> {
  const [old, now] = await Promise.all([lstat(before), lstat(after)]);
  if (kind === "symlink") return (await readlink(before)) === (await readlink(after));
  if ((old.mode & 0o7777) !== (now.mode & 0o7777)) return false;
  return kind === "file" ? old.size === now.size && (await haveSameBytes(before, after, now)) : old.rdev === now.rdev;
}

const COMPARE_BYTES = 256 * 1024;

async function haveSameBytes(before: string, after: string, { size }: Stats): Promise<boolean> {
  const files = await Promise.all([open(before), open(after)]);
  try {
    const [old, now] = [Buffer.alloc(COMPARE_BYTES), Buffer.alloc(COMPARE_BYTES)];
    for (let at = 0; at < size; at += COMPARE_BYTES) {
      const [first, second] = await Promise.all([
        files[0].read(old, 0, COMPARE_BYTES, at),
        files[1].read(now, 0, COMPARE_BYTES, at),
      ]);
      if (!old.subarray(0, first.bytesRead).equals(now.subarray(0, second.bytesRead))) return false;
    }
    return true;
  } finally {
    await Promise.all(files.map((file) => file.close()));
  }
}

async function entriesOf(folder: string | null): Promise<Map<string, Dirent>> {
  const entries = folder === null ? [] : await readdir(folder, { withFileTypes: true }).catch(() => []);
  return new Map(entries.map((entry) => [entry.name, entry]));
}

function kindOf(entry: Dirent): Change["kind"] {
  if (entry.isFile()) return "file";
  if (entry.isSymbolicLink()) return "symlink";
  return entry.isDirectory() ? "folder" : "other";
}

function joined(folder: string, name: string): string {
  return folder === "" ? name : `${folder}/${name}`;
}
