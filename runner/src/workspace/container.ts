import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { constants } from "node:os";
import { posix } from "node:path";
import { pipeline, Readable } from "node:stream";
import { promisify } from "node:util";
import { jobEnvironment } from "../environment.ts";
import { findExecutable } from "../executable.ts";
import type { CommandHost } from "./command-host.ts";
import { insidePath, type Seat } from "./commands.ts";
import {
  type ExecEnd,
  type ExecRequest,
  isWorkspaceRefusal,
  refuseWorkspace,
  type WorkspaceRefusal,
} from "./provider.ts";

/** What containers are made from unless somebody says otherwise: bash, git and compilers on Debian. */
export const DEFAULT_IMAGE = "docker.io/library/buildpack-deps:stable";

const ENGINES = ["podman", "docker"] as const;
/** Where a workspace lies in its containers: the same path for all, so that a setup script may write it down. */
const ROOT = "/workspace";
const HOME = "/home/workspace";
const TEMPORARY = "/tmp";
const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const ANSWER_MS = 15_000;
const PULL_MS = 20 * 60_000;
const GRACE_MS = 10_000;
const TELL_AGAIN_MS = 100;
/** Processes of one command: far more than a build needs, and no end of the machine. */
const TASK_COUNT = 4_096;
const FLAGS =
  `--rm --interactive --log-driver=none --cap-drop=ALL --security-opt=no-new-privileges --security-opt=label=disable
  --pids-limit=${TASK_COUNT} --entrypoint=sh`.split(/\s+/);
/** What an engine ends with when it could not start anything. */
const ENGINE_FAILED = 125;

const run = promisify(execFile);

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

type Engine = { program: string; name: (typeof ENGINES)[number] };

/** Runs each command in a container of its own, over the files of its workspace. `unavailable` names what is missing on this machine. */
export async function openContainerHost(image: string): Promise<CommandHost | WorkspaceRefusal> {
  const engine = await findEngine();
  if (isWorkspaceRefusal(engine)) return engine;
  const id = await imageId(engine, image);
  if (typeof id !== "string") return id;
  return {
    executor: `container ${id}`,
    execute: (seat, request) => executeIn(engine, image, seat, request),
    async endAll(workspace) {
      const filter = `label=${labelOf(workspace)}`;
      const { stdout } = await ask(engine, ["ps", "--all", "--quiet", "--filter", filter], ANSWER_MS);
      const ids = stdout.split("\n").filter((line) => line !== "");
      if (ids.length > 0) await ask(engine, ["rm", "--force", ...ids], ANSWER_MS).catch(() => {});
    },
  };
}

/** The first engine that answers. */
async function findEngine(): Promise<Engine | WorkspaceRefusal> {
  const faults: string[] = [];
  for (const name of ENGINES) {
    const program = findExecutable(name, process.env["PATH"] ?? "", "/");
    if (program === null) {
      faults.push(`no ${name} in PATH`);
      continue;
    }
    const format = name === "podman" ? "{{.Version.Version}}" : "{{.ServerVersion}}";
    const fault = await ask({ program, name }, ["info", "--format", format], ANSWER_MS).then(() => null, wordsOf);
    if (fault === null) return { program, name };
    faults.push(`${name} does not answer: ${fault}`);
  }
  return refuseWorkspace("unavailable", `containers need podman, or docker with its daemon (${faults.join("; ")})`);
}

async function imageId(engine: Engine, image: string): Promise<string | WorkspaceRefusal> {
  if (image.startsWith("-")) return refuseWorkspace("invalid", `${image} is no image`);
  const inspect = ["image", "inspect", "--format", "{{.Id}}", image];
  const known = await ask(engine, inspect, ANSWER_MS).catch(() => null);
  if (known !== null) return known.stdout.trim();
  const fault = await ask(engine, ["pull", "--quiet", image], PULL_MS).then(() => null, wordsOf);
  if (fault !== null) return refuseWorkspace("unavailable", `the image ${image} cannot be had: ${fault}`);
  return (await ask(engine, inspect, ANSWER_MS)).stdout.trim();
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
  const { passed, exports } = disguise(env.env);
  const name = `plumule-${randomUUID()}`;
  const merged = request.merged ?? true;
  const child = spawn(
    engine.program,
    [
      "run",
      ...FLAGS,
      `--name=${name}`,
      `--label=${labelOf(seat.id)}`,
      ...userOf(engine),
      ...volumesOf(seat),
      // Values come from the environment of this call: its arguments can be seen by everybody.
      ...Object.keys(passed).flatMap((variable) => ["--env", variable]),
      image,
      "-c",
      `${exports}${INIT}`,
      "sh",
      merged ? "merged" : "apart",
      posix.join(ROOT, folder),
      ...argv,
    ],
    { cwd: "/", env: { ...engineEnvironment(), ...passed }, stdio: ["pipe", "pipe", "pipe"] },
  );
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
  const remove = (): Promise<unknown> => ask(engine, ["rm", "--force", name], ANSWER_MS).catch(() => {});
  // Before it has started there is nobody to tell.
  const tell = (): void =>
    void ask(engine, ["kill", "--signal", "TERM", name], ANSWER_MS).catch(() => {
      if (!isOver) timers.push(setTimeout(tell, TELL_AGAIN_MS));
    });
  const stop = (reason: "timeout" | "cancelled"): void => {
    if (stopped !== null) return;
    stopped = reason;
    tell();
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
  if (stopped !== null || exitCode === null) await remove();
  if (stopped === null && (exitCode === null || (exitCode === ENGINE_FAILED && /^(?:Error|docker):/m.test(complaint))))
    return refuseWorkspace("failed", `${engine.name}: ${complaint.trim()}`);
  return { reason: stopped ?? "exit", exitCode, signal: signalOf(exitCode), survivorsKilledCount: 0, leftoverCount: 0 };
}

/** The files of a workspace, and the mirrors that its repositories borrow from at the paths where they look for them. */
function volumesOf({ root, home, temporary, mirrors }: Seat): string[] {
  const binds = [
    [root, ROOT],
    [home, HOME],
    [temporary, TEMPORARY],
  ].map(([from, to]) => `type=bind,src=${from},dst=${to}`);
  const borrowed = [...new Set(mirrors)].map((mirror) => `type=bind,src=${mirror},dst=${mirror},readonly`);
  return [...binds, ...borrowed].flatMap((mount) => ["--mount", mount]);
}

/** Files belong to whoever runs this. Root of a rootless podman is that user already. */
function userOf({ name }: Engine): string[] {
  const uid = process.getuid?.() ?? 0;
  return name === "docker" && uid !== 0 ? ["--user", `${uid}:${process.getgid?.() ?? uid}`] : [];
}

/** What an engine's own settings are found by. */
function engineEnvironment(): Record<string, string> {
  const names = /^(?:PATH|HOME|XDG_.*|DOCKER_.*|CONTAINER_.*|CONTAINERS_.*)$/;
  return Object.fromEntries(
    Object.entries(process.env).flatMap(([name, value]) =>
      names.test(name) && value !== undefined ? [[name, value] as const] : [],
    ),
  );
}

/** Variables under names that mean nothing to an engine, and the script that gives them their own: a command's DOCKER_HOST is not the engine's. */
function disguise(env: Readonly<Record<string, string>>): { passed: Record<string, string>; exports: string } {
  const entries = Object.entries(env);
  return {
    passed: Object.fromEntries(entries.map(([, value], index) => [`PLUMULE_PASSED_${index}`, value])),
    exports: entries
      .map(([name], at) => `export ${name}="$PLUMULE_PASSED_${at}"; unset PLUMULE_PASSED_${at}\n`)
      .join(""),
  };
}

function labelOf(id: string): string {
  return `plumule.workspace=${createHash("sha256").update(id).digest("hex").slice(0, 32)}`;
}

function signalOf(exitCode: number | null): NodeJS.Signals | null {
  const found = Object.entries(constants.signals).find(([, number]) => number + 128 === exitCode);
  return found === undefined ? null : (found[0] as NodeJS.Signals);
}

function ask({ program }: Engine, args: string[], timeoutMs: number): Promise<{ stdout: string; stderr: string }> {
  return run(program, args, { cwd: "/", env: engineEnvironment(), timeout: timeoutMs });
}

function wordsOf(error: unknown): string {
  const { stderr, message } = error as Error & { stderr?: string };
  return (stderr?.trim() || message).slice(-500);
}
