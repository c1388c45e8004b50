import { once } from "node:events";
import { closeSync, existsSync } from "node:fs";
import { Socket } from "node:net";
import { pipeline, Readable } from "node:stream";
import { constants } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { isMainThread } from "node:worker_threads";
import type { ContainerPlace } from "./container.ts";
import { findExecutable } from "./executable.ts";
import { type Confinement, type Launch, planLaunch, type RunnerIsolationLevel } from "./isolation.ts";
import { openPipes, type Pipe } from "./pipe.ts";
import { type Ending, type StartedProcess, startProcess } from "./process-start.ts";
import type { Shade } from "./shade.ts";
import { nextTrackingId, type ProcessTree, withNames } from "./process-tree.ts";

/** Where a chunk came from; `merged` when both streams share one pipe. */
export type OutputStream = "merged" | "stdout" | "stderr";

/** A process to run. */
export interface ProcessRequest {
  /** Program and arguments, never given to a shell. The program is looked for in `env.PATH`. */
  argv: readonly string[];
  cwd: string;
  /** The whole environment: nothing is inherited. `PWD` and `PLUMULE_TRACKING_ID` are added. */
  env: Readonly<Record<string, string>>;
  level: RunnerIsolationLevel;
  /** Where it runs at the level `container`; its program is one of the image then. */
  container?: ContainerPlace;
  /** What it does not see, at the levels with mounts of their own. */
  shade?: Shade;
  /** What limits it and everything that it starts. */
  within?: Confinement;
  /** Bytes for standard input, whole or as they come; without them it is empty. */
  stdin?: Uint8Array | AsyncIterable<Uint8Array>;
  /** A program with arguments that starts the rest of its command line somewhere else, such as in other mounts. It is put before the level's own. */
  enter?: readonly string[];
  /** One pipe for both streams keeps their order; two do not. */
  merged: boolean;
  /**
   * Called with each chunk in order. While a promise that it returned is pending, nothing more is read, so that a job that prints faster than
   * its output is taken waits for it. When it throws or rejects, the job is stopped as `lost`.
   */
  onOutput(chunk: Uint8Array, stream: OutputStream): unknown;
  /** Whether the chunk is only lent, and overwritten once `onOutput` is done with it: for output that may be long, since copies pile up until they are collected. */
  lend?: boolean;
  /** Stops the job: `firstSignal`, then `graceMs`, then SIGKILL. */
  cancel?: AbortSignal;
  /** Stops the job without a grace, or ends the grace that runs. */
  kill?: AbortSignal;
  /** SIGTERM unless given; Nix wants SIGINT. */
  firstSignal?: NodeJS.Signals;
  graceMs: number;
  /** The longest run and the longest time without output, ms; none unless given. */
  limits?: { runMs?: number; silenceMs?: number };
  /** Finds stray processes again after a crash of this process; of this process and a number unless given. One path component. */
  trackingId?: string;
}

/**
 * Why a process is over. `lost`: its end could not be observed (something killed the sandbox, or its output could not
 * be kept). `not-started`: no instruction of the job ran. Both blame the runner, not the job.
 */
export type ProcessReason = "exit" | "cancelled" | "timeout" | "silence" | "lost" | "not-started";

/** What became of a process, after its whole tree was dealt with. */
export interface ProcessResult {
  reason: ProcessReason;
  /** The exit code, 128 + n after signal n; null when none is known. */
  exitCode: number | null;
  /** The signal that ended it. In a namespace it is derived from the exit code, by the convention above. */
  signal: NodeJS.Signals | null;
  /** Processes of the job that SIGKILL had to end, daemons that outlived a job included. */
  survivorsKilledCount: number;
  /** Processes that were still alive after that; anything but 0 needs a person. */
  leftoverCount: number;
  /** What those of both counts are called, for a person; a process may choose its name. */
  survivorNames: readonly string[];
  /** What went wrong, for a person, when `reason` is `lost` or `not-started`. */
  detail: string | null;
}

type Survivors = Pick<ProcessResult, "survivorsKilledCount" | "leftoverCount" | "survivorNames">;

/** How long killed processes may take to vanish before they are reported as left over, ms. */
const PROVE_EMPTY_MS = 2_000;
/** How long output may still arrive from a pipe that a left-over process holds open, ms. */
const DRAIN_MS = 500;
/** How long the helpers of a job that ended by itself may take to follow it (`tee` flushing its last lines), ms. */
const SETTLE_MS = 100;
const POLL_MS = 10;
/** What is read at a time: as much as a pipe of Linux holds. */
const READ_BYTES = 64 * 1024;

/**
 * Runs a process to its end, and the end of everything that it started. Never throws for what the job or the machine
 * does. Must be called on the main thread: the kernel's parent-death signal follows the thread that started a child.
 */
export async function runProcess(request: ProcessRequest): Promise<ProcessResult> {
  if (!isMainThread)
    throw new Error("runProcess belongs on the main thread: a job dies with the thread that starts it");
  const [name = "", ...rest] = request.argv;
  if (!existsSync(request.cwd)) return notStarted(`no such folder: ${request.cwd}`);
  const isInside = request.level === "container";
  const program = isInside ? name : findExecutable(name, request.env["PATH"] ?? "", request.cwd);
  if (program === null) return notStarted(`no such program: ${name}`);
  if (request.cancel?.aborted) return { ...notStarted("cancelled before it started"), reason: "cancelled" };

  const trackingId = request.trackingId ?? nextTrackingId();
  const { cwd, env, container: place, shade = null } = request;
  const container = place === undefined ? null : { place, cwd, env: { ...env, PWD: cwd } };
  const planned = planLaunch(request.level, [program, ...rest], trackingId, request.within, { container, shade });
  if ("unavailable" in planned) return notStarted(`isolation level ${request.level}: ${planned.unavailable}`);
  const plan = behind(request.enter ?? [], planned);
  const outputs = await openPipes((request.merged ? 1 : 2) + (request.stdin === undefined ? 0 : 1)).catch(String);
  if (typeof outputs === "string") return notStarted(`no pipe for its output: ${outputs}`);
  const input = request.stdin === undefined ? undefined : outputs.pop();
  const [stdout, stderr = stdout] = outputs.map((pipe) => pipe.writeFd) as [number, number?];
  const job = startProcess(plan, request, trackingId, { stdin: input?.readFd ?? "ignore", stdout, stderr });
  // The job has its copies; with another writer here its end of output would never come.
  for (const pipe of outputs) closeSync(pipe.writeFd);
  const unfed = input === undefined || request.stdin === undefined ? () => {} : feed(input, request.stdin);
  if (typeof job !== "string") return supervise(job, request, outputs).finally(unfed);
  unfed();
  for (const pipe of outputs) closeSync(pipe.readFd);
  return notStarted(job);
}

/** A launch that another program starts, which is one of the machine's and not of the job's PATH. */
function behind([name, ...args]: readonly string[], plan: Launch): Launch {
  if (name === undefined) return plan;
  const file = findExecutable(name, process.env["PATH"] ?? "", "/") ?? name;
  return { ...plan, file, args: [...args, plan.file, ...plan.args] };
}

/** Writes standard input until what it answers is called. A job that does not read it closes it (EPIPE), which is its right. */
function feed(input: Pipe, bytes: Uint8Array | AsyncIterable<Uint8Array>): () => void {
  closeSync(input.readFd);
  const writer = new Socket({ fd: input.writeFd, readable: false, writable: true });
  writer.on("error", () => {});
  if (bytes instanceof Uint8Array) writer.end(bytes);
  else pipeline(Readable.from(bytes), writer, () => {});
  return () => writer.destroy();
}

async function supervise(job: StartedProcess, request: ProcessRequest, outputs: Pipe[]): Promise<ProcessResult> {
  const killed = new Map<number, string>();
  const timers: NodeJS.Timeout[] = [];
  let stopped: { reason: ProcessReason; detail: string | null; graceEndsAt: number } | null = null;

  const force = (): void => {
    for (const { pid, name } of job.tree()?.kill() ?? []) killed.set(pid, name);
    // The launcher takes a namespace that is not ready yet with it.
    if (job.tree() === null) job.child.kill("SIGKILL");
  };
  const stop = (reason: ProcessReason, detail: string | null = null): void => {
    if (stopped !== null) return;
    stopped = { reason, detail, graceEndsAt: performance.now() + request.graceMs };
    job.tree()?.signal(request.firstSignal ?? "SIGTERM");
    timers.push(setTimeout(force, job.tree() === null ? 0 : request.graceMs));
  };
  const hurry = (): void => {
    stop("cancelled");
    if (stopped !== null) stopped.graceEndsAt = 0;
    force();
  };

  const { runMs, silenceMs } = request.limits ?? {};
  const graceEndsAt = (): number => stopped?.graceEndsAt ?? 0;
  const silence = silenceMs === undefined ? null : setTimeout(() => stop("silence"), silenceMs);
  if (silence !== null) timers.push(silence);
  if (runMs !== undefined) timers.push(setTimeout(() => stop("timeout"), runMs));
  const cancel = (): void => stop("cancelled");
  request.cancel?.addEventListener("abort", cancel);
  request.kill?.addEventListener("abort", hurry);
  if (request.cancel?.aborted) cancel();
  if (request.kill?.aborted) hurry();
  const { readers, drained } = readOutput(
    outputs,
    request,
    () => silence?.refresh(),
    (detail) => stop("lost", detail),
  );

  const ending = await job.ended;
  const isEmpty = await settle(job.tree());
  // Whoever got the signal may use its grace, also after the first process; a daemon in a group of its own got none.
  while (performance.now() < graceEndsAt() && (job.tree()?.group().length ?? 0) > 0) await sleep(POLL_MS);
  for (const timer of timers) clearTimeout(timer);
  request.cancel?.removeEventListener("abort", cancel);
  request.kill?.removeEventListener("abort", hurry);
  const leftover = isEmpty ? [] : await proveEmpty(job, force);
  await drain(drained, readers);
  for (const reader of readers) reader.destroy();
  job.tree()?.close();
  return conclude(job, ending, stopped, {
    survivorsKilledCount: killed.size,
    leftoverCount: leftover.length,
    survivorNames: [
      ...killed.values(),
      ...withNames(leftover.filter((pid) => !killed.has(pid))).map(({ name }) => name),
    ],
  });
}

/** Feeds the output to the request; `drained` resolves when every writer has closed its end. */
function readOutput(
  outputs: readonly Pipe[],
  request: ProcessRequest,
  onActivity: () => void,
  onFailure: (detail: string) => void,
): { readers: Socket[]; drained: Promise<void> } {
  const streams: OutputStream[] = request.merged ? ["merged"] : ["stdout", "stderr"];
  const fail = (error: unknown): void => onFailure(`its output could not be kept: ${String(error)}`);
  const taking: Promise<void>[] = [];
  const readers = outputs.map(({ readFd }, index) => {
    const reader = openReader(readFd, (lent) => {
      onActivity();
      try {
        const taken = request.onOutput(request.lend === true ? lent : Buffer.from(lent), streams[index] ?? "merged");
        if (!(taken instanceof Promise)) return;
        reader.pause();
        taking[index] = taken.catch(fail).finally(() => reader.resume());
      } catch (error) {
        fail(error);
      }
    });
    return reader;
  });
  const closed = readers.map(async (reader, index) => {
    await once(reader, "close").catch(() => {});
    await taking[index];
  });
  return { readers, drained: Promise.all(closed).then(() => {}) };
}

/** Reads a pipe into one buffer, whose part with new bytes `take` gets: a buffer for each read would be garbage of sixty megabytes before it is collected. */
function openReader(fd: number, take: (lent: Buffer) => void): Socket {
  const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  const callback = (count: number): boolean => {
    take(buffer.subarray(0, count));
    return true;
  };
  const reader = new Socket({ fd, readable: true, writable: false, onread: { buffer, callback } });
  return reader.resume();
}

/** Waits for what is still in the pipes. The time for which somebody holds the output up does not count. */
async function drain(drained: Promise<void>, readers: Socket[]): Promise<void> {
  const isDrained = drained.then(() => true);
  for (let waitedMs = 0; waitedMs < DRAIN_MS;) {
    if ((await Promise.race([isDrained, sleep(POLL_MS, undefined, { ref: false })])) === true) return;
    if (!readers.some((reader) => reader.isPaused())) waitedMs += POLL_MS;
  }
}

/** Gives the helpers of a job that ended their time. True when nothing at all is left, so that nothing needs to be killed. */
async function settle(tree: ProcessTree | null): Promise<boolean> {
  if (tree === null) return false;
  for (const endsAt = performance.now() + SETTLE_MS; ; await sleep(POLL_MS)) {
    const left = tree.remains();
    if (left.length === 0) return true;
    if (left.every((pid) => pid === tree.init) || performance.now() >= endsAt) return false;
  }
}

/** Kills until nothing is left. Answers what refuses to go. */
async function proveEmpty(job: StartedProcess, force: () => void): Promise<number[]> {
  const deadline = performance.now() + PROVE_EMPTY_MS;
  force();
  await Promise.race([job.gone, sleep(PROVE_EMPTY_MS, undefined, { ref: false })]);
  for (;;) {
    const left = job.tree()?.remains() ?? [];
    if (left.length === 0 || performance.now() > deadline) return left;
    await sleep(POLL_MS);
    force();
  }
}

function conclude(
  job: StartedProcess,
  ending: Ending,
  stopped: { reason: ProcessReason; detail: string | null } | null,
  survivors: Survivors,
): ProcessResult {
  if (stopped !== null) {
    // Nobody but this runner ends a sandbox that it is stopping.
    const exitCode = ending.exitCode ?? (job.started() ? 128 + constants.signals.SIGKILL : null);
    return { reason: stopped.reason, exitCode, signal: signalOf(exitCode), ...survivors, detail: stopped.detail };
  }
  if (ending.lost !== null) {
    const reason = job.started() ? "lost" : "not-started";
    return { reason, exitCode: null, signal: null, ...survivors, detail: ending.lost };
  }
  return { reason: "exit", exitCode: ending.exitCode, signal: signalOf(ending.exitCode), ...survivors, detail: null };
}

function signalOf(exitCode: number | null): NodeJS.Signals | null {
  const found = Object.entries(constants.signals).find(([, number]) => number + 128 === exitCode);
  return found === undefined ? null : (found[0] as NodeJS.Signals);
}

function notStarted(detail: string): ProcessResult {
  const nobody: Survivors = { survivorsKilledCount: 0, leftoverCount: 0, survivorNames: [] };
  return { reason: "not-started", exitCode: null, signal: null, ...nobody, detail };
}
