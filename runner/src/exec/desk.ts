import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Assignment, EXEC_SUBPROTOCOL, type ExecCall } from "@plumule/protocol";
import type { RunnerConfig, RunnerFolders } from "../config.ts";
import { UNCONFINED } from "../isolation.ts";
import type { KeptWorkspaces } from "../kept.ts";
import type { Machine } from "../machine.ts";
import { runEnvironment, surroundings } from "../run-environment.ts";
import { enterWorkspace, mirrorsOf } from "../workspace.ts";
import { workspacePaths } from "../workspace/records.ts";
import { insideOf } from "./inside.ts";
import type { ExecSocket } from "./line.ts";
import { maskOf } from "./mask.ts";
import { type ExecPlace, holdSession } from "./session.ts";
import { canMakeTerminals } from "./terminal.ts";

/** A run of which a workspace is left. */
type LeftRun = Omit<Assignment, "leaseToken">;

/** What letting people in needs of the runner. `findRun` tells of a run that works. */
export type DeskDeps = {
  config: Pick<RunnerConfig, "url" | "namespace" | "allowExec">;
  folders: RunnerFolders;
  machine: Machine;
  kept: KeptWorkspaces;
  findRun: (run: string) => LeftRun | null;
  /** Opens a WebSocket; Node's own unless given. */
  connect?: (url: string, protocols: string[]) => ExecSocket;
  say: (line: string) => void;
};

/** Answers calls into sessions. */
export type ExecDesk = {
  called(call: ExecCall): void;
  /** The run is over: whoever is in there has to leave. */
  ended(run: string): void;
  /** Ends all sessions. Resolves when none of their processes is left. */
  close(): Promise<void>;
};

/** Opens the desk. */
export function openDesk(deps: DeskDeps): ExecDesk {
  const { machine, say } = deps;
  const sessions = new Map<string, { run: string; stop: AbortController; done: Promise<void> }>();
  let terminals: Promise<boolean> | null = null;

  const serve = async (call: ExecCall, stop: AbortSignal): Promise<void> => {
    const socket = await connect(deps, call);
    if (socket === null) return;
    try {
      await holdSession(socket, call, {
        find: () => placeOf(deps, call.run),
        terminals: () => (terminals ??= canMakeTerminals(machine.path)),
        stop,
        say: (line) => say(`run ${call.run}: ${line}`),
      });
    } finally {
      deps.kept.release(call.run);
    }
  };
  return {
    called(call) {
      if (sessions.has(call.exec)) return;
      const stop = new AbortController();
      const done = serve(call, stop.signal)
        .catch((error: unknown) => say(`run ${call.run}: a session failed: ${String(error)}`))
        .finally(() => sessions.delete(call.exec));
      sessions.set(call.exec, { run: call.run, stop, done });
    },
    ended(run) {
      for (const session of sessions.values()) if (session.run === run) session.stop.abort("the run has ended");
    },
    async close() {
      for (const { stop } of sessions.values()) stop.abort("the runner leaves");
      await Promise.all([...sessions.values()].map(({ done }) => done));
    },
  };
}

/** A socket that is open; null when the broker does not take it, because nobody waits any more. */
function connect({ config, connect: open = webSocket }: DeskDeps, call: ExecCall): Promise<ExecSocket | null> {
  // Whoever calls is the broker.
  const origin = (config.url ?? "").replace(/^http/, "ws");
  const path = `${origin}/v1/${config.namespace}/deployments/${call.deployment}/runs/${call.run}/exec`;
  return new Promise((resolve) => {
    const socket = open(path, [EXEC_SUBPROTOCOL, `exec.${call.token}`]);
    socket.binaryType = "arraybuffer";
    socket.addEventListener("open", () => resolve(socket));
    socket.addEventListener("close", () => resolve(null));
    socket.addEventListener("error", () => resolve(null));
  });
}

function webSocket(url: string, protocols: string[]): ExecSocket {
  return new WebSocket(url, protocols);
}

/** Where a command about a run would work, or why there is no such place. */
async function placeOf(deps: DeskDeps, run: string): Promise<ExecPlace | { refused: string }> {
  const { config, kept, findRun } = deps;
  // The broker asks nobody who does not offer it; what counts is what stands here.
  if (!config.allowExec) return { refused: "The owner of this runner lets nobody into its workspaces." };
  const running = findRun(run);
  if (running !== null) return placeInRun(deps, running);
  const left = await kept.use(run);
  if (left !== null) return placeInKept(deps, left.assignment);
  return {
    refused:
      "The run has ended, and its workspace is not kept. A runner keeps those of failed runs with --keep-failed.",
  };
}

function placeInRun(deps: DeskDeps, run: LeftRun): ExecPlace | { refused: string } {
  if (run.spec.secrets !== undefined)
    return {
      refused:
        "The secrets of this run are open while it works. Look into its workspace when it has failed and was kept.",
    };
  const inside = insideOf(run.run);
  if (inside === null) return { refused: "The run has no process at this moment: it has just begun, or is ending." };
  const place = placeIn(deps, run);
  if ("refused" in place) return place;
  const { isolation } = deps.machine;
  // In an image is nothing that starts processes as here: only the command itself goes in.
  const [enter, prefix] = isolation === "container" ? [[], inside.enter] : [inside.enter, []];
  return {
    ...place.there,
    workspace: "running",
    // Inside of the sandbox of the run there is no other to make.
    level: inside.enter.length > 0 ? "process-group" : isolation,
    enter,
    prefix,
    within: { ...UNCONFINED, joins: inside.joins },
    mask: null,
    isGone: () => deps.findRun(run.run) === null || insideOf(run.run) === null,
  };
}

async function placeInKept(deps: DeskDeps, run: LeftRun): Promise<ExecPlace | { refused: string }> {
  const { folders, machine } = deps;
  const mask = await maskOf(run, folders.secrets.identity);
  if (mask !== null && "refused" in mask) return mask;
  const place = placeIn(deps, run);
  if ("refused" in place) return place;
  return {
    ...place.there,
    ...surroundings(machine, place, { read: await mirrorsOf(folders, run.run) }),
    workspace: "kept",
    level: machine.isolation,
    enter: await enterWorkspace(folders, run.run),
    prefix: [],
    within: UNCONFINED,
    mask,
    isGone: () => false,
  };
}

type There = Pick<ExecPlace, "cwd" | "env" | "isolation">;

function placeIn({ folders, machine }: DeskDeps, run: LeftRun): { folder: string; there: There } | { refused: string } {
  const folder = join(folders.workspaces, run.run);
  const workspace = { folder, ...workspacePaths(folder) };
  const configuration = join(folder, "configuration.json");
  const env = runEnvironment(run, machine, workspace, existsSync(configuration) ? configuration : undefined);
  if (!env.ok) return { refused: `${env.name}: ${env.detail}` };
  return { folder, there: { cwd: workspace.checkout, env: env.env, isolation: machine.isolation } };
}
