import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import type { RunChanges } from "@plumule/protocol";
import type { CommitSource, FetchFailure, FetchOptions } from "./mirror.ts";
import { removeFolder } from "./remove-folder.ts";
import type { WarmQuota } from "./workspace/quota.ts";
import { readRecord, warmFolders, workspacePaths } from "./workspace/records.ts";

/** The folders of one run, all private to the runner's user. */
export interface Workspace {
  /** `<workspaces>/<run id>`, which holds the others. */
  folder: string;
  /** The working tree, at the exact commit, detached; empty when the job has no source. */
  checkout: string;
  home: string;
  temporary: string;
  /** Mirrors that the checkout borrows objects from. */
  mirrors: readonly string[];
  /** Folders that hold what the run has written, and nothing that others share. */
  written: readonly string[];
  /** What was changed in the checkout, once nothing works in it any more; null without a source, and where it is too much to say. */
  changes: () => Promise<RunChanges | null>;
}

/** Folder of all workspaces, and that of what is kept warm for them. */
export interface WorkspaceFolders {
  workspaces: string;
  warm: string;
}

/** What a workspace is made of and where. */
export interface WorkspaceOptions extends FetchOptions, WorkspaceFolders {
  runId: string;
  source: CommitSource | null;
  /** Whether overlays can be mounted for all processes of this machine to see. */
  overlay: boolean;
  /** Whose jobs may get a checkout that a job has written to, once it was put back; null for nobody's. */
  domain: string | null;
}

/** A workspace, or why there is none; nothing is left behind then. */
export type WorkspaceResult = { ok: true; workspace: Workspace } | FetchFailure;

/** Run ids are UUIDs; nothing else may name a folder that is removed. */
const RUN_ID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/**
 * Makes the workspace of a run: a warm checkout at the commit with an overlay over it, or where none can be mounted a checkout of its own. The
 * checkout is a repository that borrows the mirror's objects, and nothing that a job writes there, `.git` included, reaches another job: docs/workspaces.md.
 * What it could write to by its path is the business of its level (`shade.ts`).
 */
export async function createWorkspace(options: WorkspaceOptions): Promise<WorkspaceResult> {
  const { runId, source, warm, domain } = options;
  const folder = folderOf(options, runId);
  // A run that is tried again after a crash starts clean.
  await removeWorkspace(options, runId);
  const upper = join(warmFolders(warm).uppers, runId);
  const isMounted = source !== null && options.overlay;
  const written = isMounted ? [folder, upper] : [folder];
  const workspace: Workspace = {
    folder,
    ...workspacePaths(folder),
    mirrors: [],
    written,
    changes: async () => null,
  };
  if (source !== null) {
    // A job without a source does not wait for what a checkout needs.
    const { provideCheckout } = await import("./workspace/checkout.ts");
    const sources = [{ source, path: "." }];
    const overlay = options.overlay ? "machine" : null;
    const made = await provideCheckout({
      warm,
      id: runId,
      folder,
      sources,
      domain,
      overlay,
      setup: null,
      fetch: options,
    });
    if (!made.ok) return made;
    const { runChanges } = await import("./workspace/change-set.ts");
    workspace.changes = () => runChanges(warm, runId);
    workspace.mirrors = made.record.mirrors;
  }
  for (const path of [workspace.checkout, workspace.home, workspace.temporary])
    await mkdir(path, { recursive: true, mode: 0o700 });
  return { ok: true, workspace };
}

/** The beginning of a command line that works in the workspace of a run which has ended, as its processes saw it. */
export async function enterWorkspace({ warm }: WorkspaceFolders, runId: string): Promise<string[]> {
  const record = await readRecord(warm, runId);
  if (record === null || !record.mounted) return [];
  const { overlaysOf } = await import("./workspace/checkout.ts");
  const { withOverlays } = await import("./workspace/overlay.ts");
  return withOverlays(overlaysOf(warm, runId, record));
}

/** Mirrors that the checkout of a run borrows objects from. */
export async function mirrorsOf({ warm }: WorkspaceFolders, runId: string): Promise<readonly string[]> {
  return (await readRecord(warm, runId))?.mirrors ?? [];
}

/** Removes a workspace. False when something of it could not be removed, such as files of another user. */
export async function removeWorkspace(folders: WorkspaceFolders, runId: string): Promise<boolean> {
  const folder = folderOf(folders, runId);
  const isKnown = (await readRecord(folders.warm, runId)) !== null;
  const isDropped = !isKnown || (await (await import("./workspace/checkout.ts")).dropCheckout(folders.warm, runId));
  return (await removeFolder(folder)) && isDropped;
}

/** Run ids that have a workspace, for the sweep after a restart. */
export async function listWorkspaces({ workspaces }: WorkspaceFolders): Promise<string[]> {
  const names = await readdir(workspaces).catch(() => []);
  return names.filter((name) => RUN_ID.test(name));
}

/** Merges the packs of mirrors that have many, which may take minutes. */
export async function tendMirrors(folders: { mirrors: string; warm: string }, cancel: AbortSignal): Promise<void> {
  const { mergePacks } = await import("./workspace/merge-packs.ts");
  await mergePacks(folders, cancel);
}

/** Removes what was used longest ago of all that is kept warm, until it is within its quota and the disk has room. */
export async function collectWorkspaces(quota: WarmQuota): Promise<void> {
  const { collectSometimes } = await import("./workspace/quota.ts");
  await collectSometimes(quota);
}

function folderOf({ workspaces }: WorkspaceFolders, runId: string): string {
  if (!RUN_ID.test(runId)) throw new RangeError(`not a run id: ${runId}`);
  return join(workspaces, runId);
}
