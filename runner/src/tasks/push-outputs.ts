import { homedir } from "node:os";
import type { Task } from "@plumule/protocol";
import { NETWORK_VARIABLES } from "../git.ts";
import { cacheName, pushPaths, type NixCache } from "../nix/cache.ts";
import type { NixContext } from "../nix/run.ts";
import { runProcess } from "../process.ts";
import { ended, orderOf, stopEnd, type TaskContext, type TaskEnd } from "./task.ts";

/** How long a push may take, ms: a whole system over a slow line. A cache that hangs must not hold a finished job. */
const PUSH_MS = 30 * 60_000;
/** Characters of Nix's words in what is told. */
const DETAIL_CHARACTERS = 500;

/**
 * Pushes what a job has built to the runner's cache. The runner does this for its owner, with the owner's credentials and outside of the job's sandbox.
 * A push that fails is told, in the log and to the owner; it decides how the job ends only where the cache is required, and never that of an effect, which
 * has been applied by then.
 */
export async function pushOutputs(context: TaskContext, task: Task, end: TaskEnd): Promise<TaskEnd> {
  const cache = context.machine.nix?.cache;
  const paths = [...new Set(end.targets.flatMap(({ outputs }) => outputs.map(({ path }) => path)))];
  if (cache === undefined || end.outcome !== "succeeded" || paths.length === 0) return end;
  const name = cacheName(cache);
  if (context.untrusted) {
    // Signed with the key of the cache it would be good for everybody who trusts that.
    context.log(`[plumule] not pushed to ${name}: the job is a stranger's\n`);
    return end;
  }
  const count = paths.length === 1 ? "1 path" : `${paths.length} paths`;
  const fault = await push(context, cache, paths);
  if (fault === null) {
    context.log(`[plumule] pushed ${count} and what they need to ${name}\n`);
    return end;
  }
  // A cancel is told as one. For any other stop it is too late: the work is done.
  const stopped = context.stop.aborted ? stopEnd(orderOf(context.stop), null) : null;
  if (stopped?.outcome === "cancelled" && task.kind !== "effect") return stopped;
  const decides = cache.required && task.kind !== "effect";
  const detail = `${count} could not be pushed to ${name}: ${fault.slice(0, DETAIL_CHARACTERS)}`;
  context.log(`[plumule] ${detail}${decides ? "" : "; how the job ends does not depend on it"}\n`);
  return decides ? ended("refused", null, { code: "setup-failed", detail }) : { ...end, note: detail };
}

async function push(context: TaskContext, cache: NixCache, paths: readonly string[]): Promise<string | null> {
  const tooLong = AbortSignal.timeout(PUSH_MS);
  const run: NixContext["run"] = async (argv, { cwd, env, onStdout, onStderr }) => {
    const result = await runProcess({
      argv,
      cwd,
      env,
      level: "process-group",
      merged: false,
      firstSignal: "SIGINT",
      graceMs: 1_000,
      cancel: AbortSignal.any([context.stop, tooLong]),
      kill: context.kill,
      onOutput: (chunk, stream) => (stream === "stdout" ? onStdout(chunk) : onStderr(chunk)),
    });
    context.survivors.killedCount += result.survivorsKilledCount;
    context.survivors.leftoverCount += result.leftoverCount;
    if (result.reason === "not-started") throw new Error(result.detail ?? `${argv[0]} could not be started`);
    return { exitCode: result.signal === null ? result.exitCode : null, signal: result.signal };
  };
  const env = pushEnvironment(context);
  const fault = await pushPaths({ run, env, cwd: context.workspace.temporary }, cache, paths).catch(String);
  return fault !== null && tooLong.aborted ? `it took more than ${PUSH_MS / 60_000} minutes` : fault;
}

/** The owner's home, where credentials for stores are (`~/.aws`, `~/.ssh`), and the network of the machine; nothing of the job's. */
function pushEnvironment({ machine }: TaskContext): Record<string, string> {
  const network = NETWORK_VARIABLES.flatMap((name) => {
    const value = process.env[name];
    return value === undefined ? [] : [[name, value] as const];
  });
  return { ...Object.fromEntries(network), ...machine.variables, PATH: machine.path, HOME: homedir() };
}
