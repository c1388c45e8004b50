import { type ChildProcess, spawn, type StdioOptions } from "node:child_process";
import { closeSync, openSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { constants } from "node:os";
import { createInterface } from "node:readline";
import type { Confinement, Launch } from "./isolation.ts";
import { containerTree, groupTree, namespaceTree, type ProcessTree, TRACKING_VARIABLE } from "./process-tree.ts";

/** How the job's first process ended: by an exit code (128 + n after signal n), or unobserved, and why. */
export interface Ending {
  exitCode: number | null;
  lost: string | null;
}

/** A job whose launcher runs. */
export interface StartedProcess {
  child: ChildProcess;
  /** Null until the namespace's init has spoken. */
  tree(): ProcessTree | null;
  /** Whether an instruction of the job may have run. */
  started(): boolean;
  ended: Promise<Ending>;
  /** Resolves when the launcher itself has been reaped, or never started. */
  gone: Promise<void>;
}

/** The descriptors that a job gets; `stdout` and `stderr` may be the same. */
export interface ProcessDescriptors {
  stdin: number | "ignore";
  stdout: number;
  stderr: number;
}

/** How much of a launcher's own words is kept for a person. */
const COMPLAINT_CHARACTERS = 2_000;

/** Starts a planned launch; a string says why it could not be. The caller closes its copies of the descriptors. */
export function startProcess(
  plan: Launch,
  request: { cwd: string; env: Readonly<Record<string, string>>; within?: Confinement },
  trackingId: string,
  { stdin, stdout, stderr }: ProcessDescriptors,
): StartedProcess | string {
  try {
    // Node would leave a descriptor beyond the first three closed.
    const nothing = openSync("/dev/null", "r");
    const child = spawn(plan.file, plan.args, {
      cwd: request.cwd,
      env: plan.env ?? { ...request.env, PWD: request.cwd, [TRACKING_VARIABLE]: trackingId },
      // Its own session: a Ctrl-C meant for the runner drains the runner and must not reach the job.
      detached: true,
      stdio: stdioOf(plan, { stdin: stdin === "ignore" ? nothing : stdin, stdout, stderr }),
    });
    closeSync(nothing);
    if (plan.control === "container") return watchContainer(child, trackingId, request.within?.joins ?? []);
    return plan.control ? watchControl(child, attachNamespace) : watchChild(child, trackingId, plan.cgroup);
  } catch (error) {
    return String(error);
  }
}

function stdioOf(
  { control }: Launch,
  { stdin, stdout, stderr }: Record<keyof ProcessDescriptors, number>,
): StdioOptions {
  if (control === "container") return ["ignore", "ignore", "pipe", "pipe", stderr, stdout, stdin, "pipe"];
  return control ? [stdin, stdout, "pipe", "pipe", stderr] : [stdin, stdout, stderr];
}

function watchChild(child: ChildProcess, trackingId: string, cgroup: string | null): StartedProcess {
  const tree = child.pid === undefined ? null : groupTree(child.pid, trackingId, cgroup);
  const ended = new Promise<Ending>((resolve) => {
    child.once("error", (error) => resolve({ exitCode: null, lost: error.message }));
    child.once("exit", (code, signal) => {
      resolve({ exitCode: signal === null ? code : 128 + constants.signals[signal], lost: null });
    });
  });
  return { child, tree: () => tree, started: () => child.pid !== undefined, ended, gone: whenGone(child) };
}

function attachNamespace({ pid }: ChildProcess): ProcessTree | null {
  return pid === undefined ? null : namespaceTree(pid);
}

/** The same of a container, whose init is limited before it may go on. The descriptors end with the engine's client, whoever else holds them. */
function watchContainer(child: ChildProcess, trackingId: string, joins: readonly string[]): StartedProcess {
  const [control, word] = [3, 7].map((fd) => (child.stdio as readonly unknown[])[fd] as Socket) as [Socket, Socket];
  const part = (): void => {
    control.destroy();
    word.destroy();
  };
  word.on("error", () => {});
  child.once("exit", part);
  return watchControl(child, () => {
    const tree = containerTree(trackingId);
    try {
      if (tree === null)
        throw new Error(
          "its processes are not to be seen from here: the engine is another user's, or another machine's",
        );
      for (const join of joins) for (const pid of [tree.init, ...tree.helpers]) writeFileSync(join, String(pid));
      word.write("go\n");
      return tree;
    } catch (error) {
      part();
      throw error;
    }
  });
}

/**
 * Listens to the init of a namespace, which says `started` and later the exit code, each on a line. `attach` finds what it has started, or throws
 * when the job must not begin.
 */
function watchControl(child: ChildProcess, attach: (child: ChildProcess) => ProcessTree | null): StartedProcess {
  let tree: ProcessTree | null = null;
  let started = false;
  const ended = new Promise<Ending>((resolve) => {
    const control = child.stdio[3] as Socket;
    let complaint = "";
    child.stderr?.on(
      "data",
      (chunk: Buffer) => (complaint = `${complaint}${chunk.toString()}`.slice(-COMPLAINT_CHARACTERS)),
    );
    control.on("error", () => {});
    createInterface({ input: control }).on("line", (line) => {
      if (line === "started") {
        try {
          tree = attach(child);
          started = true;
        } catch (error) {
          complaint = String(error);
        }
      } else {
        resolve({ exitCode: Number(line), lost: null });
      }
    });
    child.once("error", (error) => resolve({ exitCode: null, lost: error.message }));
    // `close`, not `exit`: the last line may still be on its way. The job's own output is not among these streams.
    child.once("close", (code, signal) => {
      const lost = started ? "the sandbox was killed from outside" : "the sandbox could not be set up";
      resolve({ exitCode: null, lost: `${lost} (${signal ?? `exit code ${code}`}) ${complaint}`.trim() });
    });
  });
  return { child, tree: () => tree, started: () => started, ended, gone: whenGone(child) };
}

function whenGone(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    child.once("exit", () => resolve());
    child.once("error", () => resolve());
  });
}
