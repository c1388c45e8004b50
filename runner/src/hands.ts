import { existsSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { type Assignment, type ExecCall, LIMITS, PROTOCOL_VERSION } from "@plumule/protocol";
import { type AttendDeps, AttendedRun } from "./attended-run.ts";
import type { BrokerAnswer } from "./broker.ts";
import { concludeRun } from "./conclude.ts";
import type { Effect, RunRecord } from "./core/model.ts";
import type { Found } from "./core/recover.ts";
import type { ExecDesk } from "./exec/desk.ts";
import type { Journal } from "./journal.ts";
import type { KeptWorkspaces } from "./kept.ts";
import { bootId, isAlive, monotonicMs } from "./process-identity.ts";
import { journaledRuns, type JournalRecord, POLL_KEY, type SpoolRecord } from "./records.ts";
import { removeSecretFiles, sweepSecretFiles } from "./secrets/files.ts";
import type { Spool } from "./spool.ts";
import { readLease, runFiles, SUPERVISOR_VERSION } from "./supervisor/files.ts";
import { keepWithin } from "./room.ts";
import { listWorkspaces, removeWorkspace, tendMirrors } from "./workspace.ts";

/** What carrying out effects needs. `deliver` wakes whoever sends results. */
export type HandsDeps = AttendDeps & {
  journal: Journal<JournalRecord>;
  spool: Spool<SpoolRecord>;
  kept: KeptWorkspaces;
  deliver: () => void;
  /** Aborts a poll that is held. */
  interrupt: () => AbortSignal;
  polled: (answer: BrokerAnswer<Assignment | null>) => void;
};

/** Between two looks at the workspaces that are kept, ms. */
const TIDY_MS = 60_000;
/** How long the last question for a lost answer may take, ms. */
const LAST_POLL_MS = 2_000;

/** Carries out what the core decides, and holds no opinion. The runs of the journal are known to it. */
export class Hands {
  readonly #deps: HandsDeps;
  readonly #runs: Map<string, AttendedRun>;
  readonly #left = new AbortController();
  #tending: Promise<void> | null = null;
  /** Runs whose workspaces people may want to look into. */
  readonly #failed = new Set<string>();
  #desk: Promise<ExecDesk> | null = null;
  #tidying: NodeJS.Timeout | undefined;

  constructor(deps: HandsDeps) {
    this.#deps = deps;
    const left = journaledRuns(deps.journal);
    this.#runs = new Map(
      left.map(({ assignment, startedAt }) => [assignment.run, new AttendedRun(deps, assignment, startedAt)]),
    );
  }

  /** Resolves when a write is on the disk, and when anything else was begun. Rejects when the disk refuses. */
  async carryOut(effect: Effect): Promise<void> {
    const { journal, spool, deliver } = this.#deps;
    switch (effect.do) {
      case "store key":
        return journal.put(POLL_KEY, { requestKey: effect.key });
      case "forget key":
        return journal.remove(POLL_KEY);
      case "store run":
        return storeRun(this.#deps, this.#known(effect.record.run), effect.record);
      case "forget run":
        return journal.remove(effect.run);
      case "spool":
        return this.#keepResult(effect);
      case "unspool":
        return forgetResult(spool, effect.run);
      case "poll":
        return void this.#poll(effect);
      case "heartbeat":
        return void this.#known(effect.run).heartbeat(effect);
      case "prepare":
        return void this.#known(effect.run).prepare();
      case "begin":
        return this.#known(effect.run).begin();
      case "attach":
        return this.#known(effect.run).attach(effect.supervisor);
      case "renew":
        return this.#known(effect.run).renew(effect.untilMs);
      case "stop":
        return this.#known(effect.run).stop(effect.order);
      case "kill":
        return this.#known(effect.run).kill(effect.supervisor);
      case "deliver":
        return deliver();
      case "discard":
        // Large trees take long to remove, and nobody should wait for that.
        return void this.#discard(effect.run);
    }
  }

  /** What an earlier process left of the work of a run. */
  find({ run, supervisor }: RunRecord): Found {
    if (existsSync(runFiles(this.#deps.folders.runs, run).exit)) return "ended";
    return supervisor !== null && isAlive(supervisor) ? "alive" : "gone";
  }

  /** Removes what no record names and no lease keeps. */
  async sweep(): Promise<void> {
    const { kept, say } = this.#deps;
    const tidy = (): void => void kept.tidy().catch((error: unknown) => say(`kept workspaces: ${String(error)}`));
    this.#tidying = setInterval(tidy, TIDY_MS).unref();
    await sweep(this.#deps, new Set(this.#runs.keys()));
    tidy();
  }

  /** Somebody waits in a session about a run. */
  called(call: ExecCall): void {
    const { say } = this.#deps;
    const findRun = (run: string): Assignment | null => {
      const attended = this.#runs.get(run);
      return attended?.isWorking === true ? attended.assignment : null;
    };
    // Most runners let nobody in.
    this.#desk ??= import("./exec/desk.ts").then(({ openDesk }) => openDesk({ ...this.#deps, findRun }));
    void this.#desk.then(
      (desk) => desk.called(call),
      (error: unknown) => say(`a session failed: ${String(error)}`),
    );
  }

  /** Sends and watches nothing any more, and lets nobody stay. */
  async leave(): Promise<void> {
    clearInterval(this.#tidying);
    for (const run of this.#runs.values()) run.leave();
    this.#left.abort();
    await this.#tending;
    await (await this.#desk)?.close();
  }

  #known(run: string): AttendedRun {
    const found = this.#runs.get(run);
    if (found === undefined) throw new Error(`run ${run} is not known`);
    return found;
  }

  async #poll({ key, busy, last }: Extract<Effect, { do: "poll" }>): Promise<void> {
    const { tell, interrupt, polled } = this.#deps;
    const signal = last ? AbortSignal.timeout(LAST_POLL_MS) : interrupt();
    const answer = await askForWork(this.#deps, key, busy, last ? 0 : LIMITS.pollHoldMs, signal);
    if (answer.ok) {
      const assignment = answer.value;
      if (assignment !== null && !this.#runs.has(assignment.run))
        this.#runs.set(assignment.run, new AttendedRun(this.#deps, assignment, null));
      tell({ type: "poll answered", key, run: assignment?.run ?? null });
    } else tell({ type: "poll failed", key, last });
    if (!last) polled(answer);
  }

  async #keepResult({ run, end }: Extract<Effect, { do: "spool" }>): Promise<void> {
    const { spool, say, tell } = this.#deps;
    const attended = this.#known(run);
    const { assignment, startedAt, reportedNumber } = attended;
    const record = await concludeRun(this.#deps, { assignment, startedAt, end, reportedNumber });
    const answer = await spool.put(run, record);
    if (!answer.ok) throw new Error(answer.detail);
    attended.leave();
    void this.#desk?.then((desk) => desk.ended(run));
    if (record.result.outcome === "failed") this.#failed.add(run);
    if (end !== "seen") say(`run ${run}: ${record.result.reason?.detail ?? end}`);
    tell({ type: "result kept", run });
  }

  async #discard(run: string): Promise<void> {
    const { config, folders, spool, say } = this.#deps;
    const attended = this.#runs.get(run);
    this.#runs.delete(run);
    if (folders.secrets.folder !== null) await removeSecretFiles(folders.secrets.folder, run);
    const isKept = this.#failed.delete(run) && attended !== undefined && (await this.#keep(attended));
    if (!isKept && !(await removeWorkspace(folders, run)))
      say(`run ${run}: files of another user remain in ${join(folders.workspaces, run)}`);
    if (!spool.pending().some(({ runId }) => runId === run))
      await rm(runFiles(folders.runs, run).folder, { recursive: true, force: true });
    await keepWithin(config, folders);
    if (this.#runs.size === 0) this.#tend();
  }

  /** A moment without runs is one for what takes long and nobody waits for. */
  #tend(): void {
    this.#tending ??= tendMirrors(this.#deps.folders, this.#left.signal)
      .catch(() => {})
      .finally(() => (this.#tending = null));
  }

  /** False when there is no room or no wish for it, or the disk refuses. */
  async #keep({ assignment: { leaseToken: _, ...assignment } }: AttendedRun): Promise<boolean> {
    try {
      return await this.#deps.kept.keep(assignment);
    } catch (error) {
      this.#deps.say(`run ${assignment.run}: its workspace is not kept: ${String(error)}`);
      return false;
    }
  }
}

async function askForWork(
  { broker, machine }: HandsDeps,
  requestKey: string,
  busy: number,
  waitMs: number,
  signal: AbortSignal,
): Promise<BrokerAnswer<Assignment | null>> {
  const pool = await broker.pool();
  if (!pool.ok) return pool;
  const body = { requestKey, protocol: PROTOCOL_VERSION, pool: pool.value, offer: machine.offer, busy };
  return broker.poll({ ...body, waitMs }, signal);
}

async function storeRun({ journal, say }: HandsDeps, attended: AttendedRun, record: RunRecord): Promise<void> {
  const { assignment } = attended;
  const { state, supervisor } = record;
  if (state === "running") attended.startedAt ??= new Date().toISOString();
  else say(`run ${assignment.run}: ${assignment.deployment} (${assignment.spec.task.kind})`);
  await journal.put(assignment.run, {
    assignment,
    state,
    startedAt: attended.startedAt,
    supervisor: supervisor === null ? null : { ...supervisor, version: SUPERVISOR_VERSION },
  });
}

/** Removes a result that the broker has taken, and what was kept for it. */
async function forgetResult(spool: Spool<SpoolRecord>, run: string): Promise<void> {
  const found = spool.pending().find(({ runId }) => runId === run);
  await spool.remove(run);
  if (found !== undefined) await rm(found.record.folder ?? found.record.logPath, { recursive: true, force: true });
}

/** A run that the journal does not name may still be at work, for a runner of another version: its lease ends it, and a later start tidies up. */
async function sweep({ folders, spool, kept: workspaces }: HandsDeps, kept: ReadonlySet<string>): Promise<void> {
  const { folder } = folders.secrets;
  if (folder !== null) await sweepSecretFiles(folder, (run) => kept.has(run) || isLeased(folders.runs, run));
  const spooled = new Set(spool.pending().map(({ runId }) => runId));
  for (const run of await listWorkspaces(folders))
    if (!kept.has(run) && !workspaces.has(run) && !isLeased(folders.runs, run)) await removeWorkspace(folders, run);
  for (const run of await readdir(folders.runs).catch(() => []))
    if (!kept.has(run) && !spooled.has(run) && !isLeased(folders.runs, run))
      await rm(runFiles(folders.runs, run).folder, { recursive: true, force: true });
}

function isLeased(runs: string, run: string): boolean {
  const lease = readLease(runFiles(runs, run).control);
  return lease !== null && lease.boot === bootId() && lease.untilMs > monotonicMs();
}
