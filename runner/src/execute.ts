import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Assignment, type HeartbeatAnswer, LIMITS, type Reason, type ResultBody } from "@plumule/protocol";
import { createBackoff, pause } from "./backoff.ts";
import type { Broker } from "./broker.ts";
import type { RunnerConfig, RunnerFolders } from "./config.ts";
import { jobEnvironment } from "./environment.ts";
import type { Journal } from "./journal.ts";
import { keepLease, type StopOrder } from "./lease.ts";
import { type LogFile, openLogFile } from "./log-file.ts";
import { createLogUpload, type LogUpload } from "./log-upload.ts";
import type { Machine } from "./machine.ts";
import type { JournalRecord, SpoolRecord } from "./records.ts";
import { createReporter, type Reporter } from "./reporter.ts";
import type { Spool } from "./spool.ts";
import { signStatements } from "./statements.ts";
import { runSteps } from "./tasks/steps.ts";
import { ended, orderOf, stopEnd, type TaskContext, type TaskEnd } from "./tasks/task.ts";
import { createWorkspace, removeWorkspace, type Workspace } from "./workspace.ts";

/** What a run needs of its runner. */
export type RunDeps = {
  config: RunnerConfig;
  folders: RunnerFolders;
  machine: Machine;
  broker: Broker;
  journal: Journal<JournalRecord>;
  spool: Spool<SpoolRecord>;
  say: (line: string) => void;
};

/** The end of the log that is kept when it is too long. */
const LOG_TAIL_BYTES = 256 * 1024;
const FETCH_MS = 30 * 60_000;

/**
 * Works off one assignment, which is in the journal: takes the lease with a first heartbeat, does the work, puts the signed result into the
 * spool, takes the run out of the journal, tells `onSpooled`, and removes the workspace. Nothing of the job starts before the broker has
 * accepted the heartbeat, so that a lost answer never runs twice. `leave` is aborted when the runner must go (second signal).
 */
export async function executeRun(
  deps: RunDeps,
  assignment: Assignment,
  leave: AbortSignal,
  onSpooled: () => void,
): Promise<void> {
  const { journal, machine, broker, config, folders } = deps;
  const first = await takeLease(deps, assignment, leave);
  if (first === null) return journal.remove(assignment.run);
  const startedAt = new Date().toISOString();
  await journal.put(assignment.run, { assignment, state: "running", startedAt });
  const stop = stopSwitch(assignment, leave);
  const lease = keepLease({
    heartbeat: (body, signal) => broker.heartbeat(assignment, body, signal),
    leaseMs: first.leaseMs,
    askedAt: first.askedAt,
    firstCommand: first.command,
    onStop: stop.order,
    graceMs: assignment.limits.graceMs,
    clock: () => performance.now(),
  });
  const logPath = join(folders.logs, `${assignment.run}.log`);
  const file = await openLogFile(logPath, {
    limitBytes: Math.min(assignment.limits.logBytes, config.logBytes ?? Infinity),
    tailBytes: LOG_TAIL_BYTES,
  });
  const upload = createLogUpload(file, (offset, bytes) => broker.appendLog(assignment, offset, bytes));
  const reporter = createReporter(
    (batch) => broker.report(assignment, batch),
    () => new Date(),
  );
  const survivors = { killedCount: 0, leftoverCount: 0 };
  const end = await work(deps, assignment, { file, upload, reporter, stop, survivors }).catch(
    (error: unknown): TaskEnd => {
      deps.say(`run ${assignment.run}: ${String(error)}`);
      return ended("refused", null, {
        code: "setup-failed",
        detail: `The runner failed: ${String(error)}`.slice(0, LIMITS.textCharacters),
      });
    },
  );
  stop.clear();
  const workspace = join(folders.workspaces, assignment.run);
  const checkout = join(workspace, "checkout");
  const [result] = await Promise.all([
    concludeRun({ assignment, machine, end, file, reporter, startedAt, checkout, survivors }),
    upload.stop(),
  ]);
  const spooled = await deps.spool.put(assignment.run, { assignment, result, logPath });
  lease.release();
  if (!spooled.ok) deps.say(`run ${assignment.run}: its result could not be kept: ${spooled.detail}`);
  await journal.remove(assignment.run);
  // Large trees take long to remove, and nobody should wait for that.
  onSpooled();
  if (!(await removeWorkspace(folders.workspaces, assignment.run)))
    deps.say(`run ${assignment.run}: files of another user remain in ${workspace}`);
}

/** The first heartbeat, tried until the acknowledge deadline has passed. Null: the run is not ours (any more). */
async function takeLease(
  { broker, machine, say }: RunDeps,
  assignment: Assignment,
  leave: AbortSignal,
): Promise<(HeartbeatAnswer & { askedAt: number }) | null> {
  const backoff = createBackoff(100, 2_000);
  const deadline = performance.now() + assignment.acknowledgeMs;
  while (performance.now() < deadline && !leave.aborted) {
    const askedAt = performance.now();
    const answer = await broker.heartbeat(assignment, { isolation: machine.isolation });
    if (answer.ok) return { ...answer.value, askedAt };
    if (!answer.retry) {
      say(`run ${assignment.run}: not started: ${answer.problem.detail}`);
      return null;
    }
    await pause(backoff.next(), leave);
  }
  return null;
}

type StopSwitch = {
  signal: AbortSignal;
  kill: AbortSignal;
  order: (next: StopOrder) => void;
  touch(): void;
  clear(): void;
};

/** Joins all that can stop a run: the broker and the lease, the runner's leaving, and the job's own time-outs. */
function stopSwitch({ limits }: Assignment, leave: AbortSignal): StopSwitch {
  const stop = new AbortController();
  const kill = new AbortController();
  const graces: NodeJS.Timeout[] = [];
  const order = (next: StopOrder): void => {
    if (!stop.signal.aborted) stop.abort(next);
    graces.push(setTimeout(() => kill.abort(), next.graceMs));
  };
  const own = (reason: Reason): void => order({ reason, graceMs: limits.graceMs, leaseLost: false });
  const run = setTimeout(
    () => own({ code: "run-timeout", detail: `The run took longer than ${limits.runMs} ms.` }),
    limits.runMs,
  );
  let silence: NodeJS.Timeout;
  const touch = (): void => {
    clearTimeout(silence);
    silence = setTimeout(
      () => own({ code: "silence-timeout", detail: `The log was silent for ${limits.silenceMs} ms.` }),
      limits.silenceMs,
    );
  };
  touch();
  const go = (): void => own({ code: "runner-stopped", detail: "The runner was stopped." });
  leave.addEventListener("abort", go);
  if (leave.aborted) go();
  return {
    signal: stop.signal,
    kill: kill.signal,
    order,
    touch,
    clear() {
      clearTimeout(run);
      clearTimeout(silence);
      for (const grace of graces) clearTimeout(grace);
      leave.removeEventListener("abort", go);
    },
  };
}

type RunParts = {
  file: LogFile;
  upload: LogUpload;
  reporter: Reporter;
  stop: StopSwitch;
  survivors: { killedCount: number; leftoverCount: number };
};

async function work(
  { config, folders, machine }: RunDeps,
  assignment: Assignment,
  { file, upload, reporter, stop, survivors }: RunParts,
): Promise<TaskEnd> {
  const { spec } = assignment;
  const text = new TextEncoder();
  const log = (chunk: Uint8Array | string): void => {
    file.append(typeof chunk === "string" ? text.encode(chunk) : chunk);
    upload.grew();
    stop.touch();
  };
  reporter.phase("setup");
  const made = await createWorkspace({
    workspaces: folders.workspaces,
    mirrors: folders.mirrors,
    runId: assignment.run,
    source: spec.source ?? null,
    policy: { allowLocal: config.allowLocal },
    timeoutMs: FETCH_MS,
    cancel: stop.signal,
  });
  if (!made.ok) {
    if (stop.signal.aborted) return stopEnd(orderOf(stop.signal), null);
    log(`[plumule] the source cannot be had: ${made.detail}\n`);
    // What another runner may reach is not the job's failure.
    const passing = made.reason === "unreachable" || made.reason === "git-failed" || made.reason === "refused-url";
    return ended(passing ? "refused" : "failed", null, {
      code: "source-unavailable",
      detail: made.detail.slice(0, LIMITS.textCharacters),
    });
  }
  const configuration = await writeConfiguration(made.workspace, spec.configuration);
  const env = environmentOf(assignment, machine, made.workspace, configuration);
  if (!env.ok) return ended("failed", null, { code: "task-invalid", detail: `env.${env.name}: ${env.detail}` });
  const context: TaskContext = {
    machine,
    workspace: made.workspace,
    untrusted: assignment.untrusted === true,
    commit: spec.source?.commit ?? null,
    env: env.env,
    reporter,
    log,
    stop: stop.signal,
    kill: stop.kill,
    survivors,
    silenceMs: assignment.limits.silenceMs,
  };
  return runSteps(context, spec.task);
}

/** The file of the job's configuration, beside its checkout; its bytes are those whose digest the runner signs. Undefined when it has none. */
async function writeConfiguration({ folder }: Workspace, configuration: unknown): Promise<string | undefined> {
  if (configuration === undefined) return undefined;
  const path = join(folder, "configuration.json");
  await writeFile(path, JSON.stringify(configuration), { mode: 0o600 });
  return path;
}

function environmentOf(
  { spec, ...ids }: Assignment,
  machine: Machine,
  workspace: Workspace,
  configuration: string | undefined,
): ReturnType<typeof jobEnvironment> {
  return jobEnvironment({
    path: machine.path,
    home: workspace.home,
    temporary: workspace.temporary,
    machine: machine.variables,
    facts: {
      NAMESPACE: ids.namespace,
      DEPLOYMENT: ids.deployment,
      JOB: ids.job,
      RUN: ids.run,
      ATTEMPT: String(ids.attempt),
      REPOSITORY: spec.source?.repository,
      COMMIT: spec.source?.commit,
      REF: spec.source?.ref,
      TYPE: spec.type,
      CONFIGURATION: configuration,
      TEARDOWN: ids.teardown ? "1" : undefined,
    },
    ...(spec.env === undefined ? {} : { job: spec.env }),
  });
}

type Ending = {
  assignment: Assignment;
  machine: Machine;
  end: TaskEnd;
  file: LogFile;
  reporter: Reporter;
  startedAt: string;
  checkout: string;
  survivors: { killedCount: number; leftoverCount: number };
};

/** Seals the log and signs the result. Left-over processes are said aloud: they need a person. */
async function concludeRun({
  assignment,
  machine,
  end,
  file,
  reporter,
  startedAt,
  checkout,
  survivors,
}: Ending): Promise<ResultBody> {
  if (survivors.leftoverCount > 0)
    file.append(
      new TextEncoder().encode(`[plumule] ${survivors.leftoverCount} processes of this run could not be killed\n`),
    );
  reporter.phase("signing");
  const log = file.seal();
  const ran = end.outcome !== "refused";
  const finishedAt = new Date().toISOString();
  const statements = await signStatements({ assignment, machine, end, log, startedAt, finishedAt, checkout, ran });
  const batch = await reporter.finish();
  return {
    epoch: assignment.epoch,
    outcome: end.outcome,
    exitCode: end.exitCode,
    reason: end.reason,
    finishedAt,
    isolation: ran ? machine.isolation : null,
    survivorsKilled: survivors.killedCount,
    log: { bytes: log.bytes, sha256: log.sha256, truncated: log.omittedBytes > 0 },
    outputs: end.targets.flatMap((target) => target.outputs),
    statements,
    ...(batch === undefined ? {} : { events: batch }),
  };
}

/**
 * The result of a run that a crash of this runner ended: its processes died with it. The broker sends the job elsewhere, or asks a person when
 * its apply phase had begun.
 */
export async function abandonRun(
  { machine, folders, spool }: RunDeps,
  { assignment, startedAt }: { assignment: Assignment; startedAt: string | null },
): Promise<void> {
  // The crash came between spool and journal: the run has its true end.
  if (spool.pending().some(({ runId }) => runId === assignment.run)) return;
  const logPath = join(folders.logs, `${assignment.run}.log`);
  const file = await openLogFile(logPath, { limitBytes: assignment.limits.logBytes, tailBytes: LOG_TAIL_BYTES });
  file.append(new TextEncoder().encode("[plumule] the runner was restarted while this run was at work\n"));
  const end = ended("refused", null, {
    code: "runner-stopped",
    detail: "The runner was restarted while this run was at work.",
  });
  const silent: Reporter = { phase() {}, progress() {}, plan() {}, derivations() {}, finish: async () => undefined };
  const result = await concludeRun({
    assignment,
    machine,
    end,
    file,
    reporter: silent,
    startedAt: startedAt ?? new Date().toISOString(),
    checkout: "/nonexistent",
    survivors: { killedCount: 0, leftoverCount: 0 },
  });
  await spool.put(assignment.run, { assignment, result, logPath });
  await removeWorkspace(folders.workspaces, assignment.run);
}
