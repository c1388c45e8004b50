import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { lockFolder } from "../folder-lock.ts";
import { runGit } from "../git.ts";

/** Packs of a mirror from which on they are merged: each fetch brings one, and git looks for an object in all of them. */
const PACKS_COUNT = 20;
/** Objects in one of the 256 folders of those in no pack, from which on they are packed: some 7,000 of them in all, as `gc.auto` of git has it. */
const LOOSE_COUNT = 27;
const MERGE_MS = 10 * 60_000;
/** What git began and did not end lies about until nobody can be at it any more, ms. */
const LEFT_MS = 24 * 3600_000;

/**
 * Merges the packs of mirrors that have many, smaller ones first, so that it costs about what was fetched since. Nothing is lost by it, neither what no ref leads to,
 * since a checkout may borrow it, nor pins, which stay files of their own; whoever reads meanwhile finds the new pack. One process at a time does so,
 * and not while mirrors are removed. Answers how many were merged.
 */
export async function mergePacks(
  { mirrors, warm }: { mirrors: string; warm: string },
  cancel: AbortSignal,
): Promise<number> {
  const names = await readdir(mirrors).catch(() => []);
  const many: string[] = [];
  for (const name of names) if (await isScattered(join(mirrors, name))) many.push(join(mirrors, name));
  if (many.length === 0) return 0;
  const lock = await lockFolder(join(warm, "collecting"), "merging packs of mirrors");
  if (!("release" in lock)) return 0;
  try {
    let mergedCount = 0;
    for (const mirror of many) {
      if (cancel.aborted) break;
      await removeLeft(join(mirror, "objects/pack"));
      const args = ["repack", "--quiet", "-d", "--geometric=2", "--no-write-bitmap-index"];
      if ((await runGit({ args, cwd: mirror, timeoutMs: MERGE_MS, cancel })).ok) mergedCount += 1;
    }
    return mergedCount;
  } finally {
    await lock.release();
  }
}

async function isScattered(mirror: string): Promise<boolean> {
  const [packs, loose] = await Promise.all(["pack", "17"].map((name) => namesIn(join(mirror, "objects", name))));
  const packCount = packs?.filter((name) => name.endsWith(".pack")).length ?? 0;
  return packCount >= PACKS_COUNT || (loose?.length ?? 0) >= LOOSE_COUNT;
}

async function removeLeft(packs: string): Promise<void> {
  for (const name of await namesIn(packs)) {
    if (!/^(?:tmp_|\.tmp-)/.test(name)) continue;
    const status = await stat(join(packs, name)).catch(() => null);
    if (status !== null && Date.now() - status.mtimeMs > LEFT_MS) await rm(join(packs, name), { force: true });
  }
}

async function namesIn(folder: string): Promise<string[]> {
  return readdir(folder).catch(() => []);
}
