import { join } from "node:path";
import { LIMITS, type RunChanges } from "@plumule/protocol";
import { folderChanges, overlayChanges, TooManyChanges } from "./changes.ts";
import { overlaysOf, upperOf } from "./checkout.ts";
import { seenFromHere } from "./overlay.ts";
import type { Change, ChangeSet } from "./provider.ts";
import { readRecord, type TreeRecord, workspacePaths } from "./records.ts";
import { listFiles } from "./references.ts";
import { isGitPath } from "./setup.ts";
import { slotPlace } from "./slots.ts";
import { trackedChanges } from "./tree.ts";

/** A run's changes are looked for no longer than this, ms: whoever waits for its lane waits for this, too. */
const LOOK_MS = 10_000;

/**
 * What differs in a checkout from how it was provided: what an overlay holds, or else what git and a walk through the tree find. `isHidden` is asked of
 * every path beside those of git. Rejects with {@link TooManyChanges}.
 */
export async function checkoutChanges(
  warm: string,
  id: string,
  record: TreeRecord,
  isHidden: (path: string) => boolean,
): Promise<ChangeSet> {
  const { checkout } = workspacePaths(record.folder);
  const [overlay] = overlaysOf(warm, id, record);
  if (record.mounted && overlay !== undefined) {
    const merged = seenFromHere(record.keeper, checkout);
    const view = { upper: upperOf(warm, id), lowers: overlay.lowers, merged };
    return { source: "overlay", changes: await overlayChanges(view, isHidden) };
  }
  const tree = { tree: checkout, git: slotPlace(record.slot ?? "").git };
  const tracked = new Set((await listFiles(record.parts)).map(({ path }) => path));
  const layer = record.setup === null ? null : join(record.setup, "tree");
  const found: Change[] = [
    ...(await trackedChanges(tree, record.parts)),
    ...(await folderChanges(layer, checkout, (path) => tracked.has(path) || isHidden(path))),
  ];
  return { source: "git", changes: found.toSorted((a, b) => (a.path < b.path ? -1 : 1)) };
}

/** What a run has changed in its checkout, when nothing of it is alive; null where it has none, or there is too much to be looked through. */
export async function runChanges(warm: string, run: string): Promise<RunChanges | null> {
  const record = await readRecord(warm, run);
  if (record === null) return null;
  const isGit = isGitPath(record.parts);
  const until = performance.now() + LOOK_MS;
  const isHidden = (path: string): boolean => {
    if (performance.now() > until) throw new TooManyChanges();
    return isGit(path);
  };
  return checkoutChanges(warm, run, record, isHidden).then(summaryOf, () => null);
}

function summaryOf({ source, changes }: ChangeSet): RunChanges {
  const count = (change: Change["change"]): number => changes.filter((one) => one.change === change).length;
  const short = (path: string): string =>
    path.length <= LIMITS.runChangedPathCharacters ? path : `${path.slice(0, LIMITS.runChangedPathCharacters - 1)}…`;
  return {
    source,
    addedCount: count("added"),
    modifiedCount: count("modified"),
    deletedCount: count("deleted"),
    // A name may be cut within a pair, which no other side would take.
    paths: changes
      .slice(0, LIMITS.runChangedPaths)
      .map(({ path, change }) => ({ path: short(path).toWellFormed(), change })),
  };
}
