import { existsSync } from "node:fs";
import { join } from "node:path";
import { assignmentSchema } from "@plumule/protocol";
import * as z from "zod";
import type { RunnerConfig, RunnerFolders } from "./config.ts";
import { freeBytesAt } from "./doctor/examine.ts";
import { openJournal } from "./journal.ts";
import { sizeOf } from "./limits/workspace-size.ts";
import { removeWorkspace } from "./workspace.ts";
import { warmFolders } from "./workspace/records.ts";

/** A workspace that was kept. A persisted contract. Without the lease token: the run is over. */
const keptSchema = z.object({
  assignment: assignmentSchema.omit({ leaseToken: true }),
  keptAt: z.number(),
  usedAt: z.number(),
  bytes: z.number(),
});
export type KeptRun = z.output<typeof keptSchema>;

/** Workspaces of failed runs, kept for people to look into: for a time, and as far as there is room. */
export type KeptWorkspaces = {
  /** Keeps the workspace of a run that has ended, if it fits. False: it is to be removed. */
  keep(assignment: KeptRun["assignment"]): Promise<boolean>;
  has(run: string): boolean;
  /** The run whose workspace is kept, which counts as used; it stays as long as `inUse` is not called with false. */
  use(run: string): Promise<KeptRun | null>;
  release(run: string): void;
  /** Removes what is over its time, then what was used the longest ago until the rest fits. Call it now and then. */
  tidy(): Promise<void>;
};

/** What keeping needs: `remove` removes a workspace, `freeBytes` is what the disk has left. */
export type KeptDeps = {
  folder: string;
  /** Folders that hold what a run has written. */
  writtenBy: (run: string) => readonly string[];
  /** How long, where a job asks for nothing else, and the longest that one may ask for. */
  keepMs: number;
  askedMs: number;
  keepBytes: number;
  floorBytes: number;
  freeBytes: () => Promise<number>;
  remove: (run: string) => Promise<unknown>;
  now: () => number;
};

/** What a runner keeps, as it is set. */
export function openKeptOf(config: RunnerConfig, folders: RunnerFolders): Promise<KeptWorkspaces> {
  return openKept({
    folder: folders.kept,
    writtenBy: (run) => [join(folders.workspaces, run), join(warmFolders(folders.warm).uppers, run)].filter(existsSync),
    keepMs: config.keepFailedMs,
    askedMs: config.keepAskedMs,
    keepBytes: config.keepFailedBytes,
    floorBytes: config.diskFloorBytes,
    freeBytes: () => freeBytesAt(config.state),
    remove: (run) => removeWorkspace(folders, run),
    now: () => Date.now(),
  });
}

/** Opens the record of what is kept. With a time of 0 nothing is kept, and what was is removed at the next tidying; a job may ask for another time. */
export async function openKept(deps: KeptDeps): Promise<KeptWorkspaces> {
  const { keepMs, askedMs, keepBytes, floorBytes, now } = deps;
  const timeOf = ({ spec }: KeptRun["assignment"]): number =>
    Math.min(spec.keepFailedMs ?? keepMs, Math.max(keepMs, askedMs));
  const journal = await openJournal(deps.folder, (value) => keptSchema.safeParse(value).data ?? null);
  const used = new Set<string>();
  const remove = async (run: string): Promise<void> => {
    await deps.remove(run);
    await journal.remove(run);
  };
  const tidy = async (): Promise<void> => {
    const idle = [...journal.list()].filter(([run]) => !used.has(run)).toSorted(([, a], [, b]) => a.usedAt - b.usedAt);
    for (const [run, record] of idle) {
      const sum = [...journal.list().values()].reduce((bytes, one) => bytes + one.bytes, 0);
      const isOver = now() - record.keptAt >= timeOf(record.assignment);
      if (isOver || sum > keepBytes || (await deps.freeBytes()) < floorBytes) await remove(run);
      // The clock was set back: from now on it has its time once more.
      else if (record.keptAt > now()) await journal.put(run, { ...record, keptAt: now(), usedAt: now() });
    }
  };
  return {
    async keep(assignment) {
      const bytes = timeOf(assignment) === 0 ? null : await sizeOf(deps.writtenBy(assignment.run));
      if (bytes === null || bytes > keepBytes) return false;
      const at = now();
      await journal.put(assignment.run, { assignment, keptAt: at, usedAt: at, bytes });
      await tidy();
      return journal.get(assignment.run) !== undefined;
    },
    has: (run) => journal.get(run) !== undefined,
    async use(run) {
      const found = journal.get(run);
      if (found === undefined) return null;
      used.add(run);
      await journal.put(run, { ...found, usedAt: now() });
      return found;
    },
    release: (run) => void used.delete(run),
    tidy,
  };
}
