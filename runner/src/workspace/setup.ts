import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, lstat, mkdir, readdir, readFile, rename, rm, utimes } from "node:fs/promises";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { whileLocked } from "../folder-lock.ts";
import { makeWritable, removeFolder } from "../remove-folder.ts";
import { isWhiteout } from "./overlay.ts";
import { isWorkspaceRefusal, type WorkspaceRefusal } from "./provider.ts";
import { digestOf, warmFolders } from "./records.ts";
import type { TrackedFile } from "./references.ts";

const run = promisify(execFile);

/** Files that pin what a setup script brings in: with another content it may bring something else. */
const LOCK_FILES = new Set(
  `bun.lock bun.lockb Cargo.lock composer.lock conan.lock deno.lock flake.lock Gemfile.lock go.sum gradle.lockfile mix.lock npm-shrinkwrap.json
  package-lock.json Package.resolved packages.lock.json pdm.lock Pipfile.lock pixi.lock pnpm-lock.yaml poetry.lock pubspec.lock requirements.txt
  rust-toolchain rust-toolchain.toml stack.yaml.lock uv.lock yarn.lock .nvmrc .python-version .ruby-version .tool-versions`.split(
    /\s+/,
  ),
);

/** What the setup phase of a workspace depends on. */
export interface SetupPhase {
  script: string;
  env: Readonly<Record<string, string>>;
  /** Whose commits run: a layer that another domain's commits made is never taken. */
  domain: string;
  /** What runs the script, and on which system or image. */
  executor: string;
  places: readonly { url: string; path: string }[];
}

/** Names a setup layer: the same script, environment, repositories, lock files and executor leave the same behind. */
export function setupDigest(
  { script, env, domain, executor, places }: SetupPhase,
  files: readonly TrackedFile[],
): string {
  const locks = files.filter(({ path }) => LOCK_FILES.has(basename(path)));
  const lists = [
    [script, domain, executor],
    Object.entries(env).toSorted(([a], [b]) => (a < b ? -1 : 1)),
    places.map(({ url, path }) => [url, path]),
    locks.map(({ path, id }) => [path, id]),
  ];
  return digestOf(lists.map((list) => JSON.stringify(list)));
}

/** What this machine runs scripts on, as far as it matters to what they leave behind. */
export async function localExecutor(): Promise<string> {
  const release = await readFile("/etc/os-release", "utf8").catch(() => "");
  const system = /^ID=.*$/m.exec(release)?.[0] ?? "";
  return [process.platform, process.arch, system, /^VERSION_ID=.*$/m.exec(release)?.[0] ?? ""].join(" ");
}

/** What a setup script left: files that git does not track, and its home. Folders `tree` and `home`. */
export interface SetupLayer {
  folder: string;
  cached: boolean;
}

/**
 * The layer of a digest: from the cache, or `make` leaves one in the folder that it is given. A layer does not belong to a commit: it lies over any, unless
 * that tracks a file where the layer has one, in which case one is made for these very files.
 */
export async function layerOf(
  warm: string,
  digest: string,
  files: readonly TrackedFile[],
  make: (folder: string) => Promise<WorkspaceRefusal | null>,
  cancel: AbortSignal,
): Promise<SetupLayer | WorkspaceRefusal> {
  const at = join(warmFolders(warm).setups, digest);
  const folder = join(at, "layer");
  const answer = await whileLocked(
    at,
    "the setup phase",
    async () => {
      const cached = existsSync(folder);
      if (!cached) {
        const unfinished = join(at, "unfinished");
        await removeFolder(unfinished);
        for (const name of ["tree", "home"]) await mkdir(join(unfinished, name), { recursive: true, mode: 0o700 });
        const refusal = await make(unfinished);
        if (refusal !== null) {
          await removeFolder(unfinished);
          return refusal;
        }
        await rename(unfinished, folder);
      }
      await utimes(at, new Date(), new Date());
      return { folder, cached };
    },
    cancel,
  );
  if (isWorkspaceRefusal(answer)) return answer;
  if (!(await isInTheWay(join(folder, "tree"), files))) return answer;
  return layerOf(warm, digestOf([digest, ...files.map(({ path }) => path)]), [], make, cancel);
}

/** Whether a layer has something where a commit has a file, or a file where it has a folder. Only folders that both have are looked into. */
async function isInTheWay(tree: string, files: readonly TrackedFile[]): Promise<boolean> {
  const paths = new Set(files.map(({ path }) => path));
  const folders = new Set<string>();
  for (const path of paths)
    for (let end = path.lastIndexOf("/"); end > 0; end = path.lastIndexOf("/", end - 1)) {
      const folder = path.slice(0, end);
      if (folders.has(folder)) break;
      folders.add(folder);
    }
  const look = async (folder: string): Promise<boolean> => {
    for (const entry of await readdir(join(tree, folder), { withFileTypes: true })) {
      const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
      if (paths.has(path) || (folders.has(path) && !entry.isDirectory())) return true;
      if (folders.has(path) && (await look(path))) return true;
    }
    return false;
  };
  return look("");
}

/**
 * Moves what git does not track out of a folder into another, which has to be on the same file system: of an overlay its upper folder, else the tree
 * itself. What hides something is left behind, since only what is tracked could be hidden.
 */
export async function moveUntracked(
  from: string,
  to: string,
  isLeft: (path: string) => boolean,
  path = "",
): Promise<void> {
  for (const entry of await readdir(join(from, path), { withFileTypes: true })) {
    const at = path === "" ? entry.name : `${path}/${entry.name}`;
    if (isLeft(at) || (entry.isCharacterDevice() && isWhiteout(await lstat(join(from, at))))) continue;
    if (!entry.isDirectory()) {
      await mkdir(join(to, path), { recursive: true, mode: 0o700 });
      await rename(join(from, at), join(to, at));
      continue;
    }
    const { mode } = await lstat(join(from, at));
    await chmod(join(from, at), 0o700);
    const isEmpty = (await readdir(join(from, at))).length === 0;
    await moveUntracked(from, to, isLeft, at);
    // A folder of tracked files alone does not come along.
    if (isEmpty) await mkdir(join(to, at), { recursive: true, mode: 0o700 });
    if (existsSync(join(to, at))) await chmod(join(to, at), mode & 0o7777);
  }
}

/** Whether a path is a repository's own `.git`, or in it. */
export function isGitPath(places: readonly { path: string }[]): (path: string) => boolean {
  const own = places.map(({ path }) => (path === "." ? ".git" : `${path}/.git`));
  return (path) => own.some((git) => path === git || path.startsWith(`${git}/`));
}

/** Copies what the setup phase left into a workspace whose folders are not overlays. */
export async function applyLayer(layer: string, { checkout, home }: { checkout: string; home: string }): Promise<void> {
  await mkdir(home, { recursive: true, mode: 0o700 });
  await run("cp", ["-a", `${join(layer, "tree")}/.`, checkout]);
  await run("cp", ["-a", `${join(layer, "home")}/.`, home]);
}

/** Moves a home into a layer. */
export async function moveHome(home: string, layer: string): Promise<void> {
  await makeWritable(join(layer, "home"));
  await rm(join(layer, "home"), { recursive: true });
  await rename(home, join(layer, "home"));
}
