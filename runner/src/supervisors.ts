import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import type { Socket } from "node:net";
import { homedir, tmpdir } from "node:os";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import { ENGINE_VARIABLES } from "./container-engine.ts";
import type { Supervisor } from "./core/model.ts";
import { NETWORK_VARIABLES } from "./git.ts";
import { identityOf } from "./process-identity.ts";
import { SUPERVISOR_VERSION } from "./supervisor/files.ts";
import type { SupervisorOrder } from "./supervisor/order.ts";

/** A supervisor that waits for its order. */
export type WaitingSupervisor = {
  supervisor: Supervisor;
  /** Gives it its run. From then on it lives without its runner. */
  begin(order: SupervisorOrder): void;
  /** Lets it go without one. */
  dismiss(): void;
  /** Resolves when it has ended, in whatever way. */
  ended: Promise<void>;
};

/** The supply of supervisors: one waits, so that no run waits for a process to start. */
export type Supervisors = {
  /** The one that waits, or a new one. Rejects when no process can be started. */
  take(): Promise<WaitingSupervisor>;
  /** Has one wait for the next run. */
  refill(): void;
  /** Lets the one that waits go, and resolves when it has gone: it may still be writing into the runner's folder. */
  close(): Promise<void>;
};

/** Beside this file, and of its kind: a bundle has no TypeScript. */
const module = fileURLToPath(new URL(`./supervisor/main${extname(import.meta.url)}`, import.meta.url));

/** It passes output on and keeps nothing: with more room for what is young, V8 only collects it later (MB, of which it takes three). */
const FLAGS = ["--max-semi-space-size=1"];

/**
 * Opens the supply. `cache` is a folder for compiled code, which halves what a start costs. With `ownMounts` each has a mount namespace of its own: what it
 * mounts nobody else sees, and it goes with the last process of the run, whatever ends it.
 */
export function openSupervisors(cache: string, ownMounts: boolean): Supervisors {
  let spare: Promise<WaitingSupervisor> | null = null;
  let isClosed = false;
  return {
    async take() {
      const taken = spare ?? start(cache, ownMounts);
      spare = null;
      const one = await taken;
      // Something may have killed it while it waited.
      return identityOf(one.supervisor.pid) === null ? start(cache, ownMounts) : one;
    },
    refill() {
      if (isClosed) return;
      spare ??= start(cache, ownMounts);
      // Whoever takes it hears why there is none.
      spare.catch(() => {});
    },
    async close() {
      isClosed = true;
      const one = await spare?.catch(() => null);
      spare = null;
      one?.dismiss();
      await one?.ended;
    },
  };
}

async function start(cache: string, ownMounts: boolean): Promise<WaitingSupervisor> {
  // It becomes the supervisor, without a process in between.
  const alone = ["--mount", "--propagation", "slave", "--", process.execPath, ...FLAGS];
  const child = spawn(ownMounts ? "unshare" : process.execPath, ownMounts ? [...alone, module] : [...FLAGS, module], {
    // A session of its own: neither a Ctrl-C nor the end of the runner's terminal is meant for it.
    detached: true,
    cwd: "/",
    env: environment(cache),
    stdio: ["pipe", "ignore", "ignore"],
  });
  await once(child, "spawn");
  const { pid } = child;
  const identity = pid === undefined ? null : identityOf(pid);
  if (identity === null) throw new Error("a supervisor ended as soon as it was started");
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  letGo(child);
  return {
    supervisor: { version: SUPERVISOR_VERSION, ...identity },
    begin: (order) => void child.stdin?.write(`${JSON.stringify(order)}\n`),
    dismiss() {
      // Whoever leaves waits for its end, which alone would not keep the process until then.
      child.ref();
      child.stdin?.destroy();
    },
    ended,
  };
}

/** Neither the process nor the pipe to it keeps the runner from leaving; a pipe whose reader has gone is no fault. */
function letGo(child: ChildProcess): void {
  child.unref();
  child.stdin?.on("error", () => {});
  (child.stdin as Socket | null)?.unref();
}

/** What the work of a run needs of the runner's environment: nothing that could sign or name a caller. */
function environment(cache: string): Record<string, string> {
  const names = [...NETWORK_VARIABLES, ...ENGINE_VARIABLES, "PATH", "LANG", "RAD_HOME"];
  const given = names.flatMap((name) => {
    const value = process.env[name];
    return value === undefined ? [] : [[name, value] as const];
  });
  return { ...Object.fromEntries(given), HOME: homedir(), TMPDIR: tmpdir(), NODE_COMPILE_CACHE: cache };
}
