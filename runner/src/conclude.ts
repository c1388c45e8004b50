import { existsSync, renameSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Assignment, LIMITS, type Output, type Reason, type ResultBody } from "@plumule/protocol";
import type { RunnerConfig, RunnerFolders } from "./config.ts";
import type { End } from "./core/model.ts";
import { readBatches } from "./event-feed.ts";
import { fileDigest } from "./file-digest.ts";
import { logLimits, openLogFile } from "./log-file.ts";
import type { Machine } from "./machine.ts";
import { nixKeyName, signPath } from "./nix/signature.ts";
import type { SpoolRecord } from "./records.ts";
import { signStatements } from "./statements.ts";
import { runFiles, SUPERVISOR_VERSION } from "./supervisor/files.ts";
import { type ExitRecord, exitRecordSchema } from "./supervisor/records.ts";
import { ended } from "./tasks/task.ts";

/** What the result of a run is made from. `startedAt` null: it did not begin. `reportedNumber`: up to which the broker has its events. */
export type Ended = { assignment: Assignment; startedAt: string | null; end: End; reportedNumber: number };

/** What making results needs of the runner. */
export type ConcludeDeps = {
  config: RunnerConfig;
  folders: RunnerFolders;
  machine: Machine;
  say: (line: string) => void;
};

/** Events that ride on a result; more go before it, because a result that is too large would be refused for good. */
const RIDING_CHARACTERS = 64 * 1024;

const LOST: Reason = { code: "runner-lost", detail: "The process that did the work of this run was killed." };
const UNSEEN: Readonly<Record<End, Reason>> = {
  seen: LOST,
  lost: LOST,
  "not-begun": { code: "setup-failed", detail: "The runner could not start a process for the work of this run." },
  "given-back": { code: "runner-stopped", detail: "The runner was stopped before this run began." },
};

/**
 * The signed result of a run, ready for the spool. What its supervisor wrote is what it says; a run without such an end is given back, and the
 * broker sends its job elsewhere, or asks a person when its apply phase had begun.
 */
export async function concludeRun(deps: ConcludeDeps, how: Ended): Promise<SpoolRecord> {
  const { assignment, end } = how;
  const exit = end === "seen" ? await readExit(runFiles(deps.folders.runs, assignment.run).exit) : null;
  if (exit?.note !== undefined) deps.say(`run ${assignment.run}: ${exit.note}`);
  if (exit === null) return sign(deps, how, await withoutEnd(deps, assignment, UNSEEN[end]));
  try {
    return await sign(deps, how, exit);
  } catch (error) {
    // What cannot be stated now can never be. With a signer that is away this fails too, and then the run waits.
    const detail = `The result of this run could not be signed: ${String(error)}`.slice(0, LIMITS.textCharacters);
    return sign(deps, how, await withoutEnd(deps, assignment, { code: "setup-failed", detail }));
  }
}

async function sign(
  { machine, folders }: ConcludeDeps,
  { assignment, startedAt, reportedNumber }: Ended,
  exit: ExitRecord,
): Promise<SpoolRecord> {
  const files = runFiles(folders.runs, assignment.run);
  const targets = await Promise.all(
    exit.targets.map(async (target) => ({
      ...target,
      outputs: await signOutputs(machine, assignment, target.outputs),
    })),
  );
  const end = {
    outcome: exit.outcome,
    exitCode: exit.exitCode,
    reason: exit.reason,
    targets,
    ...(exit.plan === undefined ? {} : { plan: exit.plan }),
    ...(exit.schedules === undefined ? {} : { schedules: exit.schedules }),
    ...(exit.expansion === undefined ? {} : { expansion: exit.expansion }),
  };
  // What the supervisor used, not what this process would: it may have been started anew with another level.
  const isolation =
    exit.isolation === undefined ? (end.outcome === "refused" ? null : machine.isolation) : exit.isolation;
  const checkout = join(folders.workspaces, assignment.run, "checkout");
  const flakeLockSha256 =
    exit.flakeLockSha256 === undefined
      ? await fileDigest(join(checkout, "flake.lock"))
      : (exit.flakeLockSha256 ?? undefined);
  const { log, finishedAt } = exit;
  // By the machine's wall clock, which somebody may have set back meanwhile: a run that ends before it began is a statement that nobody accepts.
  const times = { startedAt: startedAt === null || startedAt > finishedAt ? finishedAt : startedAt, finishedAt };
  const statements = await signStatements({ assignment, machine, end, log, ...times, flakeLockSha256, isolation });
  const unsent = (await readBatches(files.events)).filter(({ number }) => number > reportedNumber);
  const last = unsent.at(-1);
  const rides = last !== undefined && JSON.stringify(last).length <= RIDING_CHARACTERS;
  const result: ResultBody = {
    epoch: assignment.epoch,
    outcome: end.outcome,
    exitCode: end.exitCode,
    reason: end.reason,
    finishedAt,
    isolation,
    survivorsKilled: exit.survivors.killedCount,
    ...(exit.redactions === undefined ? {} : { redactions: exit.redactions }),
    ...(exit.changes === undefined ? {} : { changes: exit.changes }),
    log: { bytes: log.bytes, sha256: log.sha256, truncated: log.omittedBytes > 0 },
    outputs: targets.flatMap((target) => target.outputs),
    statements,
    ...(rides ? { events: last } : {}),
  };
  const goesBefore = unsent.length > (rides ? 1 : 0);
  return {
    assignment,
    result,
    logPath: files.log,
    folder: files.folder,
    ...(goesBefore ? { eventsPath: files.events } : {}),
  };
}

/** How a run ended, or null when nobody wrote it, or a runner of an unknown version did. */
export async function readExit(path: string): Promise<ExitRecord | null> {
  try {
    return exitRecordSchema.safeParse(JSON.parse(await readFile(path, "utf8"))).data ?? null;
  } catch {
    return null;
  }
}

/** The end of a run that nobody wrote. Its log is what there is. */
async function withoutEnd({ folders }: ConcludeDeps, { run, limits }: Assignment, reason: Reason): Promise<ExitRecord> {
  const files = runFiles(folders.runs, run);
  const older = join(folders.logs, `${run}.log`);
  await mkdir(files.folder, { recursive: true, mode: 0o700 });
  if (existsSync(older)) renameSync(older, files.log);
  const log = await openLogFile(files.log, logLimits(limits.logBytes));
  log.append(new TextEncoder().encode(`[plumule] ${reason.detail}\n`));
  return {
    version: SUPERVISOR_VERSION,
    ...ended("refused", null, reason),
    log: log.seal(),
    finishedAt: new Date().toISOString(),
    survivors: { killedCount: 0, leftoverCount: 0 },
  };
}

/**
 * Adds the runner's Nix-native signature to each output, which `nix store verify` checks with the runner's public key. Not to what was built for a
 * stranger: it would be good in every store that trusts the runner.
 */
async function signOutputs(
  { signer }: Machine,
  { untrusted }: Assignment,
  outputs: readonly Output[],
): Promise<Output[]> {
  if (untrusted === true) return [...outputs];
  const keyName = nixKeyName(signer.publicKey);
  return Promise.all(
    outputs.map(async (output) => ({
      ...output,
      signatures: [...output.signatures, await signPath(output, keyName, (bytes) => signer.sign(bytes))],
    })),
  );
}
