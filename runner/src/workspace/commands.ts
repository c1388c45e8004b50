import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { posix } from "node:path";
import { LIMITS } from "@plumule/protocol";
import { jobEnvironment } from "../environment.ts";
import type { RunnerIsolationLevel } from "../isolation.ts";
import { runProcess } from "../process.ts";
import type { ProcessIdentity } from "../process-identity.ts";
import type { Shade } from "../shade.ts";
import { enter, seenFromHere } from "./overlay.ts";
import {
  type ExecEnd,
  type ExecRequest,
  isWorkspaceRefusal,
  refuseWorkspace,
  type WorkspaceRefusal,
} from "./provider.ts";

/** Where commands run, and as what. */
export interface Seat {
  /** Tells its processes from those of other workspaces; one path component. */
  id: string;
  /** The root of the workspace. */
  root: string;
  home: string;
  temporary: string;
  /** Where programs are looked for. */
  path: string;
  env: Readonly<Record<string, string>>;
  /** Folders outside of it that its repositories borrow objects from. */
  mirrors: readonly string[];
  /** What of other workspaces commands do not see. */
  shade: Shade;
  /** The process whose mounts they see; null for those of the machine. */
  keeper: ProcessIdentity | null;
}

/** Between SIGTERM and SIGKILL, ms. */
const GRACE_MS = 10_000;

/** What `findTracked` finds all processes of a workspace by. */
export function trackingOf(id: string): string {
  return `workspace-${id}`;
}

/** A path as it was given, as one below the root: `.` for the root itself. Absolute ones begin there; null for one that leads out. */
export function insidePath(path: string): string | null {
  const inside = posix.normalize(`./${path}`).replace(/(?<=.)\/$/, "");
  return inside === ".." || inside.startsWith("../") || inside.includes("\0") ? null : inside;
}

/** Runs a command on a seat, as processes of this machine. */
export async function execute(
  seat: Seat,
  request: ExecRequest,
  level: RunnerIsolationLevel,
): Promise<ExecEnd | WorkspaceRefusal> {
  const { command, cwd = ".", onOutput = () => {} } = request;
  const argv = typeof command === "string" ? ["bash", "-c", command] : command;
  if (argv.length === 0 || argv[0] === "") return refuseWorkspace("invalid", "a command needs a program");
  if (argv.some((word) => word.includes("\0")))
    return refuseWorkspace("invalid", "a command cannot hold a NUL character");
  const folder = insidePath(cwd);
  if (folder === null) return refuseWorkspace("invalid", `cwd ${cwd} is not in the workspace`);
  const { root, home, temporary, path, keeper } = seat;
  if (!existsSync(seenFromHere(keeper, posix.join(root, folder))))
    return refuseWorkspace("not-found", `there is no folder ${cwd}`);
  const facts = { WORKSPACE: seat.id };
  const env = jobEnvironment({ path, home, temporary, facts, job: { ...seat.env, ...request.env } });
  if (!env.ok) return refuseWorkspace("invalid", `env.${env.name}: ${env.detail}`);
  const ran = await runProcess({
    // Only a shell behind the mounts finds the folder, and a program that is named relative to it.
    argv: ["sh", "-c", 'cd -- "$1" || exit 125; shift; exec "$@"', "sh", posix.join(root, folder), ...argv],
    cwd: "/",
    env: env.env,
    level,
    shade: seat.shade,
    enter: enter(keeper),
    merged: request.merged ?? true,
    onOutput,
    graceMs: GRACE_MS,
    trackingId: `${trackingOf(seat.id)}.${randomUUID()}`,
    limits: request.timeoutMs === undefined ? {} : { runMs: request.timeoutMs },
    ...(request.stdin === undefined ? {} : { stdin: request.stdin }),
    ...(request.cancel === undefined ? {} : { cancel: request.cancel }),
    ...(request.kill === undefined ? {} : { kill: request.kill }),
  });
  const { reason, exitCode, signal, survivorsKilledCount, leftoverCount } = ran;
  switch (reason) {
    case "exit":
    case "timeout":
    case "cancelled":
      return { reason, exitCode, signal, survivorsKilledCount, leftoverCount };
    case "silence":
    case "lost":
    case "not-started":
      return refuseWorkspace("failed", ran.detail ?? "the command could not be observed");
  }
}

/** How a command on a seat, or in a container, is run. */
export type Execute = (request: ExecRequest) => Promise<ExecEnd | WorkspaceRefusal>;

/** No file, and a way out of the workspace: exit codes that no program below uses. */
const NO_FILE = 66;
const OUTSIDE = 67;

/**
 * Ends a script when a path leads out of the folder that it starts in. A repository may bring links to whatever its reader can read; who changes
 * one in between runs commands here, and so reaches that file anyway.
 */
const STAY_INSIDE = `root=$(pwd -P); stay() { case $(readlink -f -- "$1") in "$root" | "$root"/*) ;; *) exit ${OUTSIDE} ;; esac; };`;

/** Reads a file by a command, so that it is seen as a command sees it. Links are followed inside of the workspace alone. */
export async function readByCommand(run: Execute, path: string): Promise<Uint8Array | WorkspaceRefusal> {
  const inside = insidePath(path);
  if (inside === null) return refuseWorkspace("invalid", `${path} is not in the workspace`);
  const chunks: Uint8Array[] = [];
  const complaints: Uint8Array[] = [];
  const script = `${STAY_INSIDE} [ -f "$1" ] || exit ${NO_FILE}; stay "$1"; exec head -c "$2" -- "$1"`;
  const end = await run({
    command: ["sh", "-c", script, "sh", `./${inside}`, String(LIMITS.workspaceFileBytes + 1)],
    merged: false,
    onOutput: (chunk, stream) => void (stream === "stderr" ? complaints : chunks).push(chunk),
  });
  if (isWorkspaceRefusal(end)) return end;
  if (end.exitCode === NO_FILE) return refuseWorkspace("not-found", `there is no file ${path}`);
  if (end.exitCode === OUTSIDE) return refuseWorkspace("invalid", `${path} is a link out of the workspace`);
  if (end.exitCode !== 0) return refuseWorkspace("failed", `${path} cannot be read: ${textOf(complaints)}`);
  const bytes = new Uint8Array(Buffer.concat(chunks));
  if (bytes.length <= LIMITS.workspaceFileBytes) return bytes;
  return refuseWorkspace("too-large", `${path} is larger than ${LIMITS.workspaceFileBytes} bytes`);
}

/** Writes a file by a command, in place of the one that is there. */
export async function writeByCommand(
  run: Execute,
  path: string,
  content: Uint8Array,
  mode = 0o644,
): Promise<{ bytes: number } | WorkspaceRefusal> {
  const inside = insidePath(path);
  if (inside === null || inside === ".") return refuseWorkspace("invalid", `${path} is no file in the workspace`);
  if (content.length > LIMITS.workspaceFileBytes)
    return refuseWorkspace("too-large", `more than ${LIMITS.workspaceFileBytes} bytes are not written at once`);
  const complaints: Uint8Array[] = [];
  // Whole or not at all: a reader never finds half of it.
  const script =
    `${STAY_INSIDE} folder=\${1%/*}; while [ ! -d "$folder" ]; do folder=\${folder%/*}; done; stay "$folder"; ` +
    'mkdir -p -- "${1%/*}" && cat >"$2" && chmod "$3" "$2" && { [ ! -d "$1" ] || exit 66; } && mv -f -- "$2" "$1"';
  const unfinished = `./${inside}.${randomUUID()}`;
  const end = await run({
    command: ["sh", "-c", script, "sh", `./${inside}`, unfinished, (mode & 0o777).toString(8)],
    stdin: content,
    onOutput: (chunk) => void complaints.push(chunk),
  });
  if (isWorkspaceRefusal(end)) return end;
  if (end.exitCode === 0) return { bytes: content.length };
  await run({ command: ["rm", "-f", "--", unfinished] });
  if (end.exitCode === NO_FILE) return refuseWorkspace("invalid", `${path} is a folder`);
  if (end.exitCode === OUTSIDE) return refuseWorkspace("invalid", `${path} leads over a link out of the workspace`);
  return refuseWorkspace("failed", `${path} cannot be written: ${textOf(complaints)}`);
}

function textOf(chunks: readonly Uint8Array[]): string {
  return Buffer.concat(chunks).toString("utf8").trim().slice(-500);
}
