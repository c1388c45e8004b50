import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { lstat, mkdir, readFile, realpath, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { promisify } from "node:util";
import { identityOf, isAlive, type ProcessIdentity } from "../process-identity.ts";
import { removeFolder } from "../remove-folder.ts";

/**
 * How overlays can be mounted here. `machine`: in the namespace of this process, for all to see, which takes root. `namespace`: in a user and mount
 * namespace, held open by a process, which commands enter.
 */
export type OverlayMode = "machine" | "namespace";

/** One overlay: what is written to `target` goes into `upper`; the lowers, uppermost first, stay as they are. */
export interface OverlayMount {
  target: string;
  lowers: readonly string[];
  /** A folder that is made for `upper` and what the kernel needs beside it; nobody writes there by its path. */
  upper: string;
}

/** Mounts that stand. `keeper` holds their namespace, and is null where it is the machine's. */
export interface Mounted {
  keeper: ProcessIdentity | null;
}

const run = promisify(execFile);
const PROBE_MS = 10_000;

/**
 * No features that tie an upper folder to one lower: both are used anew with others. `userxattr` is how a namespace without privileges
 * marks folders that hide what is below.
 */
const OPTIONS = { machine: "redirect_dir=nofollow,index=off,metacopy=off,xino=off", namespace: "userxattr,xino=off" };

const found = new Map<string, Promise<OverlayMode | { unavailable: string }>>();

/** Finds out how overlays can be mounted over files in a folder, by mounting one and writing to it. It is found out once per folder and process. */
export function probeOverlay(folder: string): Promise<OverlayMode | { unavailable: string }> {
  const known = found.get(folder) ?? probe(folder);
  found.set(folder, known);
  return known;
}

async function probe(folder: string): Promise<OverlayMode | { unavailable: string }> {
  if (process.platform !== "linux") return { unavailable: "overlayfs is a part of Linux" };
  const reasons: string[] = [];
  for (const mode of ["machine", "namespace"] as const) {
    const at = join(folder, `probe-${randomUUID()}`);
    const why = await tryMode(mode, at).catch((error: unknown) => wordsOf(error));
    await removeFolder(at);
    if (why === null) return mode;
    reasons.push(`${mode}: ${why}`);
  }
  return { unavailable: reasons.join("; ") };
}

/** Hides a file and adds another: the upper folder has to show both, and the lower one neither. */
async function tryMode(mode: OverlayMode, at: string): Promise<string | null> {
  const [lower, upper, target] = ["lower", "upper", "target"].map((name) => join(at, name)) as [string, string, string];
  await mkdir(lower, { recursive: true, mode: 0o700 });
  await mkdir(target, { recursive: true, mode: 0o700 });
  await writeFile(join(lower, "old"), "");
  const mounted = await mountOverlays(mode, [{ target, lowers: [lower], upper }]);
  const script = 'rm "$1/old" && echo new >"$1/new"';
  try {
    await run("env", [...enter(mounted.keeper), "sh", "-c", script, "sh", target], { timeout: PROBE_MS });
  } finally {
    await unmountOverlays(mounted.keeper, [target]);
  }
  const isHidden = isWhiteout(await lstat(join(upper, "files", "old")));
  const isAdded = (await readFile(join(upper, "files", "new"), "utf8")) === "new\n";
  return isHidden && isAdded && existsSync(join(lower, "old")) ? null : "what is written does not show";
}

/** Whether an entry of an upper folder says that there is none: a character device 0/0 (the kernel's overlayfs document). */
export function isWhiteout(entry: { isCharacterDevice(): boolean; rdev: number | bigint }): boolean {
  return entry.isCharacterDevice() && Number(entry.rdev) === 0;
}

/** What an overlay wrote, as its upper folder has it. */
export function upperFiles({ upper }: Pick<OverlayMount, "upper">): string {
  return join(upper, "files");
}

/** Mounts overlays, all in one namespace. Rejects with the kernel's words. */
export async function mountOverlays(mode: OverlayMode, mounts: readonly OverlayMount[]): Promise<Mounted> {
  for (const { target, upper } of mounts) {
    await mkdir(target, { recursive: true, mode: 0o700 });
    await mkdir(join(upper, "files"), { recursive: true, mode: 0o700 });
    await mkdir(join(upper, "work"), { recursive: true, mode: 0o700 });
  }
  const commands = mounts.map((mount) => mountCommand(mode, mount));
  if (mode === "namespace") return { keeper: await keepNamespace(commands) };
  for (const { cwd, args } of commands) await run("mount", args, { cwd, timeout: PROBE_MS });
  return { keeper: null };
}

/** Takes overlays down. A keeper's go with it. */
export async function unmountOverlays(keeper: ProcessIdentity | null, targets: readonly string[]): Promise<void> {
  if (keeper !== null) {
    if (isAlive(keeper)) process.kill(keeper.pid, "SIGKILL");
    return;
  }
  const mounted = await mountsBelow(targets);
  for (const target of mounted)
    // Something may still look into it; nobody finds it any more, and it goes with the last who does.
    await run("umount", ["--lazy", target]).catch(() => {});
}

/** The beginning of a command line that starts a program where the mounts are. */
export function enter(keeper: ProcessIdentity | null): string[] {
  if (keeper === null) return [];
  return ["nsenter", "--user", "--mount", "--preserve-credentials", "--target", String(keeper.pid), "--"];
}

/**
 * The beginning of a command line that mounts overlays for all that it starts, and for nothing else: they go with the last process. The folder in which it
 * is started is looked for anew behind the mounts. Takes the rights of {@link OverlayMode} `machine`.
 */
export function withOverlays(mounts: readonly OverlayMount[]): string[] {
  const script = `there=$PWD
${MOUNT_ALL}
shift
cd "$there"
exec "$@"`;
  const words = mounts.map((mount) => mountCommand("machine", mount)).flatMap(wordsFor);
  return ["unshare", "--mount", "--propagation", "slave", "--", "sh", "-c", script, "sh", ...words, "--"];
}

/** The path by which this process sees what is mounted at a path. */
export function seenFromHere(keeper: ProcessIdentity | null, path: string): string {
  return keeper === null ? path : join(`/proc/${keeper.pid}/root`, path);
}

/** Whether the mounts still stand: neither a restart of the machine nor the end of their keeper has taken them. */
export async function areMounted(keeper: ProcessIdentity | null, targets: readonly string[]): Promise<boolean> {
  return keeper === null ? (await mountsBelow(targets)).length >= targets.length : isAlive(keeper);
}

/** Mount points of this process at or below some folders, the innermost first. */
async function mountsBelow(folders: readonly string[]): Promise<string[]> {
  const table = await readFile("/proc/self/mountinfo", "utf8").catch(() => "");
  const points = table.split("\n").flatMap((line) => line.split(" ")[4] ?? []);
  const paths = points.map((point) =>
    point.replace(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8))),
  );
  const real = await Promise.all(folders.map((folder) => realpath(folder).catch(() => folder)));
  return paths.filter((path) => real.some((folder) => path === folder || path.startsWith(`${folder}/`))).toReversed();
}

/** Paths are given from the folder where `upper` is, so that no character of theirs is one of the options'. */
function mountCommand(mode: OverlayMode, { target, lowers, upper }: OverlayMount): { cwd: string; args: string[] } {
  const below = lowers.map((lower) => relative(upper, lower)).join(":");
  const options = `lowerdir=${below},upperdir=files,workdir=work,${OPTIONS[mode]}`;
  return { cwd: upper, args: ["-t", "overlay", "overlay", "-o", options, target] };
}

/** Mounts what its arguments say, three words each, up to `--`. */
const MOUNT_ALL = `set -e
while [ "$1" != -- ]; do
  cd "$1"
  mount -t overlay overlay -o "$2" "$3"
  shift 3
done`;

function wordsFor({ cwd, args }: { cwd: string; args: string[] }): string[] {
  return [cwd, args[4] ?? "", args[5] ?? ""];
}

/** Mounts, says so, and sleeps until it is killed. */
const KEEPER = `${MOUNT_ALL}
cd /
echo mounted
exec sleep infinity >/dev/null 2>&1`;

async function keepNamespace(commands: readonly { cwd: string; args: string[] }[]): Promise<ProcessIdentity> {
  const flags = ["--user", "--map-current-user", "--keep-caps", "--mount", "--propagation", "slave"];
  const child = spawn("unshare", [...flags, "--", "sh", "-c", KEEPER, "sh", ...commands.flatMap(wordsFor), "--"], {
    // It outlives whoever made it: a workspace is found again by the next command.
    detached: true,
    cwd: "/",
    env: { PATH: process.env["PATH"] ?? "" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let complaint = "";
  child.stderr.on("data", (chunk: Buffer) => (complaint += chunk.toString()));
  const word = await Promise.race([
    once(child.stdout, "data").then(([chunk]) => String(chunk)),
    // Rejects with what is wrong when there is no such program.
    once(child, "close").then(() => null),
  ]);
  const keeper = child.pid === undefined || word === null ? null : identityOf(child.pid);
  if (keeper === null) throw new Error(complaint.trim() || "the namespace of the overlay could not be made");
  child.unref();
  child.stdout.destroy();
  child.stderr.destroy();
  return keeper;
}

function wordsOf(error: unknown): string {
  const { stderr, message } = error as Error & { stderr?: string };
  return (stderr?.trim() || message).slice(0, 500);
}
