import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import type { RunChanges } from "@plumule/protocol";
import { runEnvironment, surroundings } from "../run-environment.ts";
import { fileDigest } from "../file-digest.ts";
import { logLimits, openLogFile } from "../log-file.ts";
import type { FetchOptions } from "../mirror.ts";
import { createReporter, type Reporter } from "../reporter.ts";
import type { RunSecrets } from "../secrets/run-secrets.ts";
import { withoutSecrets } from "../secrets/without-secrets.ts";
import type { Survivors } from "../survivors.ts";
import { loadTask, runSteps } from "../tasks/steps.ts";
import { ended, orderOf, stopEnd, type TaskContext, type TaskEnd } from "../tasks/task.ts";
import { createWorkspace, type Workspace } from "../workspace.ts";
import { createLineWriter, replaceFile, runFiles, SUPERVISOR_VERSION } from "./files.ts";
import { limitRun } from "./limit-run.ts";
import type { SupervisorOrder } from "./order.ts";
import type { ExitRecord } from "./records.ts";
import { openStopSwitch, type StopSwitch, whenTaken } from "./stop-switch.ts";

const FETCH_MS = 30 * 60_000;
/** Characters of an error's words in a reason. */
const DETAIL_CHARACTERS = 2_000;
/** Between two tries to write how the run ended, on a disk that is full, ms. */
const WRITE_AGAIN_MS = 1_000;

/** What ends a run beside its orders: its runner's end, where the work may not outlive it, and a signal to this process. */
export type Ends = { left: AbortSignal | null; terminated: AbortSignal };

/**
 * Does the work of one run: workspace, steps, log, events, and last the file that says how it ended, when its process tree is proved empty.
 * Returns when that file is written.
 */
export async function superviseRun(order: SupervisorOrder, { left, terminated }: Ends): Promise<void> {
  const files = runFiles(order.runs, order.assignment.run);
  const stop = openStopSwitch(order.assignment, files.control);
  const stopped = (detail: string, graceMs: number | null): void =>
    stop.order({ reason: { code: "runner-stopped", detail }, graceMs, leaseLost: false });
  terminated.addEventListener("abort", () => stopped("The process that does this run's work was told to end.", null));
  left?.addEventListener("abort", () => stopped("The runner has gone.", 0));
  if (left?.aborted === true) stopped("The runner has gone.", 0);
  const log = await openLogFile(files.log, logLimits(order.logLimitBytes));
  const secrets = await secretsOf(order, stop, (bytes) => log.append(bytes));
  const writeEvents = createLineWriter(files.events);
  const reporter = createReporter(
    (batch) => writeEvents(JSON.stringify(secrets.mask(batch))),
    () => new Date(),
    order,
  );
  const survivors = { killedCount: 0, leftoverCount: 0 };
  const ran: TaskContext["ran"] = { isolation: null };
  const text = new TextEncoder();
  const say = (chunk: Uint8Array | string): void => {
    secrets.log(typeof chunk === "string" ? text.encode(chunk) : chunk);
    stop.touch();
  };
  const end = await work(order, { reporter, stop, survivors, ran, secrets, log: say }).catch(
    (error: unknown): TaskEnd => {
      const detail = `The runner failed: ${String(error)}`.slice(0, DETAIL_CHARACTERS);
      return ended("refused", null, { code: "setup-failed", detail });
    },
  );
  stop.clear();
  await secrets.close();
  if (survivors.leftoverCount > 0)
    secrets.log(text.encode(`[plumule] ${survivors.leftoverCount} processes of this run could not be killed\n`));
  reporter.phase("signing");
  secrets.endLog();
  const sealed = await whenDiskTakes(() => log.seal());
  const record: ExitRecord = {
    version: SUPERVISOR_VERSION,
    ...secrets.mask(end),
    log: { ...sealed },
    finishedAt: new Date().toISOString(),
    flakeLockSha256: (await fileDigest(join(order.workspaces, order.assignment.run, "checkout/flake.lock"))) ?? null,
    survivors,
    ...ran,
    redactions: secrets.counts(),
    note: secrets.note() ?? end.note,
  };
  // Without this file the run counts as lost. The events come before it, where the disk takes them: whoever sees the end reads no further.
  await whenDiskTakes(() => {
    reporter.finish();
    replaceFile(files.exit, JSON.stringify(record));
  });
}

async function secretsOf(
  order: SupervisorOrder,
  stop: StopSwitch,
  append: (bytes: Uint8Array) => void,
): Promise<RunSecrets> {
  const { assignment, secrets: places } = order;
  const { kind } = assignment.spec.task;
  // An effect has a token of its own, which is a secret too; what a repository describes may be one.
  if (assignment.spec.secrets === undefined && (kind === "shell" || kind === "nix-build"))
    return withoutSecrets(append);
  const { createRunSecrets } = await import("../secrets/run-secrets.ts");
  return createRunSecrets({ assignment, places, fetch: fetchOptions(order, stop), append });
}

/** Does what writes to the disk, again until a full one takes it: what is written at the end of a run is its result. */
async function whenDiskTakes<T>(write: () => T): Promise<T> {
  for (;;) {
    try {
      return write();
    } catch {
      await pause(WRITE_AGAIN_MS);
    }
  }
}

type RunParts = {
  reporter: Reporter;
  stop: StopSwitch;
  survivors: Survivors;
  ran: TaskContext["ran"];
  secrets: RunSecrets;
  log: (chunk: Uint8Array | string) => void;
};

function fetchOptions({ mirrors, allowLocal, radicle }: SupervisorOrder, stop: StopSwitch): FetchOptions {
  return { mirrors, policy: { allowLocal, radicle }, timeoutMs: FETCH_MS, cancel: stop.signal };
}

async function work(
  order: SupervisorOrder,
  { reporter, stop, survivors, ran, secrets, log }: RunParts,
): Promise<TaskEnd & { changes?: RunChanges }> {
  const { assignment, machine } = order;
  const { spec } = assignment;
  if (order.unmet !== null) return ended("refused", null, { code: "refused", detail: order.unmet });
  reporter.phase("setup");
  const loaded = loadTask(spec.task);
  loaded.catch(() => {});
  const made = await createWorkspace({
    workspaces: order.workspaces,
    warm: order.warm,
    runId: assignment.run,
    source: spec.source ?? null,
    overlay: machine.overlay,
    // A checkout that a stranger's job has written to serves no other job.
    domain: assignment.untrusted === true ? null : `${assignment.namespace}/${assignment.deployment}`,
    ...fetchOptions(order, stop),
  });
  if (!made.ok) {
    if (stop.signal.aborted) return stopEnd(orderOf(stop.signal), null);
    log(`[plumule] the source cannot be had: ${made.detail}\n`);
    // What another runner may reach is not the job's failure.
    const passing = made.reason === "unreachable" || made.reason === "git-failed" || made.reason === "refused-url";
    const detail = made.detail.slice(0, DETAIL_CHARACTERS);
    return ended(passing ? "refused" : "failed", null, { code: "source-unavailable", detail });
  }
  const configuration = await writeConfiguration(made.workspace, spec.configuration);
  const env = runEnvironment(assignment, machine, made.workspace, configuration);
  if (!env.ok) return ended("failed", null, { code: "task-invalid", detail: `env.${env.name}: ${env.detail}` });
  const limited = limitRun(order, { workspace: made.workspace.written, stop, log, survivors });
  if ("refused" in limited) return ended("refused", null, { code: "setup-failed", detail: limited.refused });
  const context: TaskContext = {
    assignment,
    machine,
    workspace: made.workspace,
    untrusted: assignment.untrusted === true,
    commit: spec.source?.commit ?? null,
    env: env.env,
    job: {
      configuration:
        configuration === undefined || assignment.configurationSha256 === null
          ? null
          : { path: configuration, sha256: assignment.configurationSha256 },
      type: spec.type ?? null,
      source: spec.source ?? null,
    },
    tell: (event) => whenTaken(runFiles(order.runs, assignment.run).control, reporter.wish(event), stop.signal),
    effectStates: order.effectStates,
    secrets,
    reporter,
    log,
    stop: stop.signal,
    kill: stop.kill,
    survivors,
    ran,
    within: limited.within,
    ...surroundings(machine, made.workspace, { read: [...made.workspace.mirrors, ...secretFolders(order)] }),
    silenceMs: assignment.limits.silenceMs,
    ...(spec.skipUnchanged === true ? { lastSuccess: assignment.lastSuccess ?? null } : {}),
  };
  await loaded;
  const end = await limited.around(() => runSteps(context, spec.task));
  // Whoever stops a run waits for it to be gone, and not for what it did.
  const changes = stop.signal.aborted ? null : await made.workspace.changes();
  if (changes === null) return end;
  const { describeChanges } = await import("@plumule/protocol");
  const text = describeChanges(changes, (path) => path.replace(/\p{Cc}/gu, "?"));
  if (text !== null) log(`[plumule] changed in the checkout: ${text}\n`);
  return { ...end, changes };
}

function secretFolders({ secrets: { folder }, assignment }: SupervisorOrder): string[] {
  return folder === null ? [] : [join(folder, assignment.run)];
}

/** The file of the job's configuration, beside its checkout; its bytes are those whose digest the runner signs. Undefined when it has none. */
async function writeConfiguration({ folder }: Workspace, configuration: unknown): Promise<string | undefined> {
  if (configuration === undefined) return undefined;
  const path = join(folder, "configuration.json");
  await writeFile(path, JSON.stringify(configuration), { mode: 0o600 });
  return path;
}
