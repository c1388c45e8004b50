import { randomUUID } from "node:crypto";
import { lstatSync, readdirSync, rmSync } from "node:fs";
import { cp, lstat, mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate as letOthersGo } from "node:timers/promises";
import { type GitResult, runGit } from "../git.ts";
import type { FetchFailure } from "../mirror.ts";
import { makeWritable, removeFolder } from "../remove-folder.ts";
import type { Change } from "./provider.ts";

/** A commit of a repository, complete in a mirror, and the folder of a tree where it goes. */
export interface TreePart {
  url: string;
  /** Relative to the root of the tree; `.` is the root. */
  path: string;
  commit: string;
  mirror: string;
}

/**
 * A tree of files for commands, and beside it, one per part, the git folders that the provider keeps to itself. What a command may write to has
 * a copy of them as `.git`. The provider runs git with its own alone: hooks, configuration, index and alternates that a command wrote are
 * thrown away unread.
 */
export interface TreePlace {
  tree: string;
  git: string;
}

/** How a tree is brought to its commits. */
export interface TreeOptions {
  cancel?: AbortSignal | undefined;
}

/**
 * Who may have written into a tree, and what of that goes. `nobody`: only the provider. `commands`: everything goes. `setup`: what git does not track
 * stays.
 */
export type TreeWriter = "nobody" | "commands" | "setup";

type Failure = FetchFailure | null;

const GIT_MS = 10 * 60_000;
/** Bytes of a list of paths: a million of them. */
const LIST_BYTES = 128 * 1024 * 1024;

/** Makes a tree anew. Its repositories borrow the objects of their mirrors (`objects/info/alternates`): nothing is copied, and no command's git writes into a mirror. */
export async function fillTree(place: TreePlace, parts: readonly TreePart[], options: TreeOptions): Promise<Failure> {
  await mkdir(place.tree, { recursive: true, mode: 0o700 });
  await mkdir(place.git, { recursive: true, mode: 0o700 });
  for (const [index, part] of parts.entries()) {
    const folder = join(place.tree, part.path);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const failed = await makeGitFolder(place, index, part, options);
    if (failed !== null) return failed;
    const out = await partGit(
      place,
      index,
      part,
      options,
      "checkout",
      "--quiet",
      "--detach",
      "--force",
      part.commit,
      "--",
    );
    if (!out.ok) return gitFailure(out);
    await giveGitFolder(place, index, part);
  }
  return null;
}

/**
 * Puts a tree to these commits, whatever was done to it: tracked files as they are there, nothing else unless `setup` wrote it, and a new `.git`. The
 * parts are those that it was made of, in their order. What cannot be put right is said; the tree is of no use then.
 */
export async function restoreTree(
  place: TreePlace,
  parts: readonly TreePart[],
  writer: TreeWriter,
  options: TreeOptions,
): Promise<Failure> {
  if (!(await isFolder(place.tree)))
    return { ok: false, reason: "git-failed", detail: "the tree is no folder any more" };
  if (writer === "commands") await pruneOutside(place.tree, parts);
  for (const [index, part] of parts.entries()) {
    const folder = join(place.tree, part.path);
    if (!(await isFolder(folder))) await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const first = await restorePart(place, index, part, writer, options);
    if (first === null) continue;
    // Folders without rights for their owner are what stops git.
    await makeWritable(folder);
    const second = first.reason === "cancelled" ? first : await restorePart(place, index, part, writer, options);
    if (second !== null) return second;
  }
  return null;
}

/** What differs of the tracked files of a tree, as their content tells. The index that is asked, and put right, is the provider's own. */
export async function trackedChanges(place: TreePlace, parts: readonly TreePart[]): Promise<Change[]> {
  const found: Change[] = [];
  for (const [index, part] of parts.entries()) {
    const prefix = part.path === "." ? "" : `${part.path}/`;
    // Without this a file that was only touched would count; the exit code tells that there is one.
    await partGit(place, index, part, {}, "update-index", "-q", "--really-refresh");
    const args = ["diff-index", "--raw", "-z", "--no-renames", "HEAD", "--"];
    const listed = await partGit(place, index, part, { outputBytes: LIST_BYTES }, ...args);
    if (!listed.ok) throw new Error(listed.detail);
    const words = listed.stdout.split("\0");
    for (let at = 0; at + 1 < words.length; at += 2) {
      const [old = "", now = "", , , status] = (words[at] ?? "").slice(1).split(" ");
      const isGone = status === "D";
      found.push({
        path: `${prefix}${words[at + 1]}`,
        change: isGone ? "deleted" : "modified",
        kind: kindOfMode(isGone ? old : now),
      });
    }
  }
  return found;
}

/** gitformat-index(5): the kinds of entries that a tree has. */
function kindOfMode(mode: string): Change["kind"] {
  if (mode === "120000") return "symlink";
  return mode.startsWith("100") ? "file" : "other";
}

/** Runs git for a part of a tree, with the provider's own git folder. */
export function partGit(
  { tree, git }: TreePlace,
  index: number,
  { path }: TreePart,
  { cancel, outputBytes }: TreeOptions & { outputBytes?: number },
  ...args: string[]
): Promise<GitResult> {
  const folder = join(tree, path);
  return runGit({
    args: [`--git-dir=${join(git, String(index))}`, `--work-tree=${folder}`, ...args],
    cwd: folder,
    timeoutMs: GIT_MS,
    ...(cancel === undefined ? {} : { cancel }),
    ...(outputBytes === undefined ? {} : { outputBytes }),
  });
}

async function makeGitFolder(
  place: TreePlace,
  index: number,
  part: TreePart,
  { cancel }: TreeOptions,
): Promise<Failure> {
  const folder = join(place.tree, part.path);
  const format = part.commit.length === 64 ? "sha256" : "sha1";
  const args = ["init", "--quiet", "--template=", `--object-format=${format}`];
  const made = await runGit({ args, cwd: folder, timeoutMs: GIT_MS, ...(cancel === undefined ? {} : { cancel }) });
  if (!made.ok) return gitFailure(made);
  const own = join(place.git, String(index));
  await rename(join(folder, ".git"), own);
  await mkdir(join(own, "objects/info"), { recursive: true });
  await writeFile(join(own, "objects/info/alternates"), `${join(part.mirror, "objects")}\n`);
  return null;
}

async function giveGitFolder({ tree, git }: TreePlace, index: number, { path }: TreePart): Promise<void> {
  await cp(join(git, String(index)), join(tree, path, ".git"), { recursive: true, preserveTimestamps: true });
}

async function restorePart(
  place: TreePlace,
  index: number,
  part: TreePart,
  writer: TreeWriter,
  options: TreeOptions,
): Promise<Failure> {
  const folder = join(place.tree, part.path);
  const removing = removeAside(join(folder, ".git"), place.git);
  if (writer !== "nobody") {
    const failed = await unlinkShared(folder).catch((error: Error) => error.message);
    if (failed !== undefined) return { ok: false, reason: "git-failed", detail: failed };
  }
  const reset = await partGit(place, index, part, options, "reset", "--quiet", "--hard", part.commit, "--");
  if (!reset.ok) return gitFailure(reset);
  if (writer === "commands") {
    const cleaned = await partGit(place, index, part, options, "clean", "--quiet", "-ffdx", "-e", "/.git");
    if (!cleaned.ok) return gitFailure(cleaned);
  }
  if (!(await removing))
    return { ok: false, reason: "git-failed", detail: `${join(folder, ".git")} cannot be removed` };
  await giveGitFolder(place, index, part);
  return null;
}

/** Removes a folder after it was moved out of the way, while its place is used again. */
async function removeAside(path: string, beside: string): Promise<boolean> {
  const aside = join(beside, `old-${randomUUID()}`);
  const isMoved = await rename(path, aside).then(
    () => true,
    () => false,
  );
  return removeFolder(isMoved ? aside : path);
}

/** Parts a file from its other names: whoever kept one could write into the file of a later command. git writes it anew. */
async function unlinkShared(folder: string): Promise<undefined> {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) await unlinkShared(path);
    else if (entry.isFile() && lstatSync(path).nlink > 1) rmSync(path, { force: true });
  }
  // Asking the kernel synchronously is ten times as fast, but a server has others to serve.
  await letOthersGo();
}

/** Removes what lies in a tree and in no repository. */
async function pruneOutside(tree: string, parts: readonly TreePart[]): Promise<void> {
  for (const path of await strays(tree, parts)) await removeFolder(join(tree, path));
}

/** What lies in a tree and in none of its parts. A folder on the way to a part that has become something else is one, too. */
async function strays(tree: string, parts: readonly TreePart[], folder = ""): Promise<string[]> {
  const paths = parts.map(({ path }) => path);
  if (paths.includes(".")) return [];
  const found: string[] = [];
  for (const entry of await readdir(join(tree, folder), { withFileTypes: true }).catch(() => [])) {
    const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
    if (entry.isDirectory() && paths.includes(path)) continue;
    if (entry.isDirectory() && paths.some((part) => part.startsWith(`${path}/`)))
      found.push(...(await strays(tree, parts, path)));
    else found.push(path);
  }
  return found;
}

async function isFolder(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => null))?.isDirectory() === true;
}

function gitFailure(result: GitResult & { ok: false }): FetchFailure {
  return { ok: false, reason: result.reason === "cancelled" ? "cancelled" : "git-failed", detail: result.detail };
}
