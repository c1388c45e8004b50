import { type ChildProcess, spawn } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { constants } from "node:os";
import { posix } from "node:path";
import { pipeline, Readable } from "node:stream";
import {
  answeringEngine,
  askEngine,
  type Engine,
  type ContainerMount,
  engineEnvironment,
  engineWords,
  passedEnvironment,
  removeContainers,
  runArguments,
  tellContainer,
} from "../container-engine.ts";
import { jobEnvironment } from "../environment.ts";
import type { CommandHost } from "./command-host.ts";
import { insidePath, type Seat } from "./commands.ts";
import { type ExecEnd, type ExecRequest, refuseWorkspace, type WorkspaceRefusal } from "./provider.ts";

/** What containers are made from unless somebody says otherwise: bash, git and compilers on Debian. */
export const DEFAULT_IMAGE = "docker.io/library/buildpack-deps:stable";

/** Where a workspace lies in its containers: the same path for all, so that a setup script may write it down. */
const ROOT = "/workspace";
const HOME = "/home/workspace";
const TEMPORARY = "/tmp";
const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PULL_MS = 20 * 60_000;
const GRACE_MS = 10_000;
const TELL_AGAIN_MS = 100;
/** Processes of one command: far more than a build needs, and no end of the machine. */
const TASK_COUNT = 4_096;
/** A command needs no rights, and no way to them. */
const FLAGS = ["--interactive", "--cap-drop=ALL", "--security-opt=no-new-privileges", `--pids-limit=${TASK_COUNT}`];
/** What an engine ends with when it could not start anything. */
const ENGINE_FAILED = 125;

/**
 * PID 1 of a command's container, for which no signal has a default: it passes TERM on to everything, and ends with the command's code. What the
 * command left behind ends with it. A signal interrupts `wait`, which then has to be asked again, and knows nothing more when it had just answered.
 */
const INIT = `exec 3<&0
if [ "$1" = merged ]; then exec 2>&1; fi
shift
cd -- "$1" || exit 125
shift
trap 'told=1; kill -TERM -1 2>/dev/null' TERM
"$@" <&3 3<&- &
child=$!
exec 3<&-
while :; do
  told=
  wait "$child"
  code=$?
  if [ "$code" = 127 ] && [ -n "$before" ]; then exit "$before"; fi
  [ -n "$told" ] || exit "$code"
  before=$code
done`;

/** Runs each command in a container of its own, over the files of its workspace. `unavailable` names what is missing on this machine. */
export async function openContainerHost(image: string): Promise<CommandHost | WorkspaceRefusal> {
  const engine = await answeringEngine(process.env["PATH"] ?? "");
  if ("unavailable" in engine)
    return refuseWorkspace("unavailable", `containers need podman, or docker with its daemon (${engine.unavailable})`);
  const id = await imageId(engine, image);
  if (typeof id !== "string") return id;
  return {
    executor: `container ${id}`,
    execute: (seat, request) => executeIn(engine, image, seat, request),
    endAll: (workspace) => removeContainers(engine, `label=${labelOf(workspace)}`),
  };
}

async function imageId(engine: Engine, image: string): Promise<string | WorkspaceRefusal> {
  if (image.startsWith("-")) return refuseWorkspace("invalid", `${image} is no image`);
  const inspect = ["image", "inspect", "--format", "{{.Id}}", image];
  const known = await askEngine(engine, inspect).catch(() => null);
  if (known !== null) return known.trim();
  const fault = await askEngine(engine, ["pull", "--quiet", image], PULL_MS).then(() => null, engineWords);
  if (fault !== null) return refuseWorkspace("unavailable", `the image ${image} cannot be had: ${fault}`);
  return (await askEngine(engine, inspect)).trim();
}

async function executeIn(
  engine: Engine,
  image: string,
  seat: Seat,
  request: ExecRequest,
): Promise<ExecEnd | WorkspaceRefusal> {
  const { command, cwd = "." } = request;
  // Not every small image has bash.
  const text = 'if command -v bash >/dev/null; then exec bash -c "$1"; fi; exec sh -c "$1"';
  const argv = typeof command === "string" ? ["sh", "-c", text, "sh", command] : command;
  if (argv.length === 0 || argv[0] === "") return refuseWorkspace("invalid", "a command needs a program");
  if (argv.some((word) => word.includes("\0")))
    return refuseWorkspace("invalid", "a command cannot hold a NUL character");
  const folder = insidePath(cwd);
  if (folder === null) return refuseWorkspace("invalid", `cwd ${cwd} is not in the workspace`);
  if (!existsSync(posix.join(seat.root, folder))) return refuseWorkspace("not-found", `there is no folder ${cwd}`);
  const job = { ...seat.env, ...request.env };
  const facts = { WORKSPACE: seat.id };
  const env = jobEnvironment({ path: PATH, home: HOME, temporary: TEMPORARY, facts, job });
  if (!env.ok) return refuseWorkspace("invalid", `env.${env.name}: ${env.detail}`);
  const name = `plumule-${randomUUID()}`;
  const merged = request.merged ?? true;
  const args = runArguments({
    image,
    mounts: mountsOf(seat),
    names: Object.keys(env.env),
    script: INIT,
    argv: [merged ? "merged" : "apart", posix.join(ROOT, folder), ...argv],
    flags: [...FLAGS, `--name=${name}`, `--label=${labelOf(seat.id)}`, ...userOf(engine)],
  });
  const child = spawn(engine.program, args, {
    cwd: "/",
    env: { ...engineEnvironment(), ...passedEnvironment(env.env) },
    stdio: ["pipe", "pipe", "pipe"],
  });
  return watch(engine, child, name, request, merged);
}

async function watch(
  engine: Engine,
  child: ChildProcess,
  name: string,
  { stdin, timeoutMs, cancel, kill, onOutput }: ExecRequest,
  merged: boolean,
): Promise<ExecEnd | WorkspaceRefusal> {
  let stopped: "timeout" | "cancelled" | null = null;
  let complaint = "";
  let isOver = false;
  const timers: NodeJS.Timeout[] = [];
  const remove = (): Promise<number> => removeContainers(engine, `name=${name}`).catch(() => 1);
  // Before it has started there is nobody to tell.
  const tell = async (): Promise<void> => {
    if (!(await tellContainer(engine, name, "TERM")) && !isOver)
      timers.push(setTimeout(() => void tell(), TELL_AGAIN_MS));
  };
  const stop = (reason: "timeout" | "cancelled"): void => {
    if (stopped !== null) return;
    stopped = reason;
    void tell();
    timers.push(setTimeout(() => void remove(), GRACE_MS));
  };
  const cancelled = (): void => stop("cancelled");
  const killed = (): void => {
    stop("cancelled");
    void remove();
  };
  if (timeoutMs !== undefined) timers.push(setTimeout(() => stop("timeout"), timeoutMs));
  cancel?.addEventListener("abort", cancelled);
  kill?.addEventListener("abort", killed);
  if (cancel?.aborted === true) cancelled();
  child.stdout?.on("data", (chunk: Buffer) => onOutput?.(chunk, merged ? "merged" : "stdout"));
  child.stderr?.on("data", (chunk: Buffer) => {
    complaint = (complaint + chunk.toString("utf8")).slice(-2_000);
    if (!merged) onOutput?.(chunk, "stderr");
  });
  if (child.stdin !== null)
    pipeline(Readable.from(stdin instanceof Uint8Array ? [stdin] : (stdin ?? [])), child.stdin, () => {});
  const exitCode = await new Promise<number | null>((resolve) => {
    child.once("error", (error) => {
      complaint = error.message;
      resolve(null);
    });
    child.once("close", (code) => resolve(code));
  });
  isOver = true;
  for (const timer of timers) clearTimeout(timer);
  cancel?.removeEventListener("abort", cancelled);
  kill?.removeEventListener("abort", killed);
  // An engine's own process may be killed without its container.
  const leftoverCount = stopped !== null || exitCode === null ? await remove() : 0;
  if (stopped === null && (exitCode === null || (exitCode === ENGINE_FAILED && /^(?:Error|docker):/m.test(complaint))))
    return refuseWorkspace("failed", `${engine.name}: ${complaint.trim()}`);
  return { reason: stopped ?? "exit", exitCode, signal: signalOf(exitCode), survivorsKilledCount: 0, leftoverCount };
}

/** The files of a workspace, and the mirrors that its repositories borrow from at the paths where they look for them. */
function mountsOf({ root, home, temporary, mirrors }: Seat): ContainerMount[] {
  return [
    { from: root, to: ROOT, writable: true },
    { from: home, to: HOME, writable: true },
    { from: temporary, to: TEMPORARY, writable: true },
    ...[...new Set(mirrors)].map((mirror) => ({ from: mirror, to: mirror, writable: false })),
  ];
}

/** Files belong to whoever runs this. Root of a rootless podman is that user already. */
function userOf({ name }: Engine): string[] {
  const uid = process.getuid?.() ?? 0;
  return name === "docker" && uid !== 0 ? ["--user", `${uid}:${process.getgid?.() ?? uid}`] : [];
}

function labelOf(id: string): string {
  return `plumule.workspace=${createHash("sha256").update(id).digest("hex").slice(0, 32)}`;
}

function signalOf(exitCode: number | null): NodeJS.Signals | null {
  const found = Object.entries(constants.signals).find(([, number]) => number + 128 === exitCode);
  return found === undefined ? null : (found[0] as NodeJS.Signals);
}
