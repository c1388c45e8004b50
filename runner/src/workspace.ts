import { chmod, lstat, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runGit } from "./git.ts";
import type { CommitSource, FetchFailure, FetchOptions } from "./mirror.ts";

/** The folders of one run, all private to the runner's user. */
export interface Workspace {
  /** `<workspaces>/<run id>`, which holds the others. */
  folder: string;
  /** The working tree, at the exact commit, detached; empty when the job has no source. */
  checkout: string;
  home: string;
  temporary: string;
}

/** What a workspace is made of and where. */
export interface WorkspaceOptions extends FetchOptions {
  /** Folder of all workspaces. */
  workspaces: string;
  runId: string;
  source: CommitSource | null;
}

/** A workspace, or why there is none; nothing is left behind then. */
export type WorkspaceResult = { ok: true; workspace: Workspace } | FetchFailure;

const CHECKOUT_TIMEOUT_MS = 10 * 60_000;
/** Run ids are UUIDs; nothing else may name a folder that is removed. */
const RUN_ID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/**
 * Makes the workspace of a run. The checkout is a repository of its own that borrows the mirror's objects
 * (`objects/info/alternates`): nothing is copied, and unlike in a worktree the job's git commands write refs, configuration and
 * objects into its own repository, never into the mirror. After the job has run, the runner runs no git there.
 * A job still could write into the mirror's files by their path: it runs as the same user until a level hides them.
 */
export async function createWorkspace(options: WorkspaceOptions): Promise<WorkspaceResult> {
  const { runId, source } = options;
  if (!RUN_ID.test(runId)) throw new RangeError(`not a run id: ${runId}`);
  const folder = join(options.workspaces, runId);
  // A run that is tried again after a crash starts clean.
  await removeFolder(folder);
  const workspace = {
    folder,
    checkout: join(folder, "checkout"),
    home: join(folder, "home"),
    temporary: join(folder, "tmp"),
  };
  for (const path of [workspace.checkout, workspace.home, workspace.temporary]) {
    await mkdir(path, { recursive: true, mode: 0o700 });
  }
  const failed = source === null ? null : await fill(workspace.checkout, source, options);
  if (failed === null) return { ok: true, workspace };
  await removeFolder(folder);
  return failed;
}

async function fill(checkout: string, source: CommitSource, options: FetchOptions): Promise<FetchFailure | null> {
  const format = source.commit.length === 64 ? "sha256" : "sha1";
  const { cancel } = options;
  const git = (args: string[]): ReturnType<typeof runGit> =>
    runGit({ args, cwd: checkout, timeoutMs: CHECKOUT_TIMEOUT_MS, ...(cancel === undefined ? {} : { cancel }) });

  // A job without a source does not wait for what a mirror needs.
  const { mirrorCommit } = await import("./mirror.ts");
  const [mirrored, created] = await Promise.all([
    mirrorCommit(source, options),
    git(["init", "--quiet", "--template=", `--object-format=${format}`]),
  ]);
  if (!mirrored.ok) return mirrored;
  if (!created.ok) return { ok: false, reason: "git-failed", detail: created.detail };
  await mkdir(join(checkout, ".git/objects/info"), { recursive: true });
  await writeFile(join(checkout, ".git/objects/info/alternates"), `${join(mirrored.mirror, "objects")}\n`);
  const out = await git(["checkout", "--quiet", "--detach", "--force", source.commit, "--"]);
  if (out.ok) return null;
  return { ok: false, reason: out.reason === "cancelled" ? "cancelled" : "git-failed", detail: out.detail };
}

/** Removes a workspace. False when something of it could not be removed, such as files of another user. */
export async function removeWorkspace(workspaces: string, runId: string): Promise<boolean> {
  if (!RUN_ID.test(runId)) throw new RangeError(`not a run id: ${runId}`);
  return removeFolder(join(workspaces, runId));
}

/** Run ids that have a workspace, for the sweep after a restart. */
export async function listWorkspaces(workspaces: string): Promise<string[]> {
  const names = await readdir(workspaces).catch(() => []);
  return names.filter((name) => RUN_ID.test(name));
}

async function removeFolder(folder: string): Promise<boolean> {
  const options = { recursive: true, force: true, maxRetries: 2 };
  try {
    await rm(folder, options);
    return true;
  } catch {
    // Build tools make folders read-only (Go's module cache, copies from a Nix store); their owner may undo that.
    await makeWritable(folder);
  }
  return rm(folder, options).then(
    () => true,
    () => false,
  );
}

async function makeWritable(path: string): Promise<void> {
  const status = await lstat(path).catch(() => null);
  if (status?.isDirectory() !== true) return;
  await chmod(path, 0o700).catch(() => {});
  for (const name of await readdir(path).catch(() => [])) await makeWritable(join(path, name));
}
