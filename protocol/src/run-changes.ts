import * as z from "zod";
import { LIMITS } from "./limits.ts";

/** How many paths of its checkout a run has changed. Of folders only empty ones count, and nothing in `.git` does. */
export const changeCountsSchema = z.object({
  addedCount: z.int().min(0),
  modifiedCount: z.int().min(0),
  deletedCount: z.int().min(0),
});
export type ChangeCounts = z.output<typeof changeCountsSchema>;

/**
 * What a run has changed in its checkout, with the first paths by name. `source`: an `overlay` holds every write; `git` compares. It is for
 * people: nothing is decided by it, and nobody has signed it.
 */
export const runChangesSchema = changeCountsSchema
  .extend({
    source: z.string().max(16),
    paths: z
      .array(
        z.object({
          path: z.string().max(LIMITS.runChangedPathCharacters),
          change: z.enum(["added", "modified", "deleted"]),
        }),
      )
      .max(LIMITS.runChangedPaths),
  })
  .meta({ id: "RunChanges" });
export type RunChanges = z.output<typeof runChangesSchema>;

/** The counts for people, such as `2 added, 1 modified`; null when nothing was changed. */
export function describeCounts({ addedCount, modifiedCount, deletedCount }: ChangeCounts): string | null {
  const counts = Object.entries({ added: addedCount, modified: modifiedCount, deleted: deletedCount });
  const words = counts.flatMap(([word, count]) => (count === 0 ? [] : [`${count} ${word}`]));
  return words.length === 0 ? null : words.join(", ");
}

/** Counts and the first paths, such as `2 added: dist/a, dist/b`; null when nothing was changed. Paths may hold anything: `plain` makes them text. */
export function describeChanges(changes: RunChanges, plain: (path: string) => string): string | null {
  const counts = describeCounts(changes);
  if (counts === null) return null;
  const { addedCount, modifiedCount, deletedCount, paths } = changes;
  const unnamed = addedCount + modifiedCount + deletedCount - paths.length;
  const names = [...paths.map(({ path }) => plain(path)), ...(unnamed > 0 ? [`and ${unnamed} more`] : [])];
  return `${counts}: ${names.join(", ")}`;
}
