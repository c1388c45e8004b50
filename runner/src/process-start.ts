import { type ChildProcess, spawn } from "node:child_process";
import type { Socket } from "node:net";
import { constants } from "node:os";
import { createInterface } from "node:readline";
import type { Launch } from "./isolation.ts";
import { groupTree, namespaceTree, type ProcessTree, TRACKING_VARIABLE } from "./process-tree.ts";

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
  request: { cwd: string; env: Readonly<Record<string, string>> },
  trackingId: string,
  { stdin, stdout, stderr }: ProcessDescriptors,
): StartedProcess | string {
  try {
    const child = spawn(plan.file, plan.args, {
      cwd: request.cwd,
      env: { ...request.env, PWD: request.cwd, [TRACKING_VARIABLE]: trackingId },
      // Its own session: a Ctrl-C meant for the runner drains the runner and must not reach the job.
      detached: true,
      stdio: plan.control ? [stdin, stdout, "pipe", "pipe", stderr] : [stdin, stdout, stderr],
    });
    return plan.control ? watchControl(child) : watchChild(child, trackingId, plan.cgroup);
  } catch (error) {
    return String(error);
  }
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

/** Listens to the init of a namespace, which says `started` and later the exit code, each on a line. */
function watchControl(child: ChildProcess): StartedProcess {
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
        started = true;
        tree = child.pid === undefined ? null : namespaceTree(child.pid);
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
