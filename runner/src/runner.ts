import { randomUUID } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { type Assignment, type ClientDeps, didKeyOf, LIMITS, PROTOCOL_VERSION } from "@plumule/protocol";
import { createBackoff, pause } from "./backoff.ts";
import { type BrokerAnswer, connectBroker } from "./broker.ts";
import { runnerConfigSchema, type RunnerFolders, runnerFolders, type RunnerOptions } from "./config.ts";
import { createDeliverer, type Deliverer } from "./deliver.ts";
import { abandonRun, executeRun, type RunDeps } from "./execute.ts";
import { type Journal, openJournal } from "./journal.ts";
import { probeMachine } from "./machine.ts";
import {
  isSpentKey,
  type JournalRecord,
  journalRecordSchema,
  recordReader,
  type RunRecord,
  type SpoolRecord,
  spoolRecordSchema,
} from "./records.ts";
import { openSigner, register } from "./register.ts";
import { openSpool } from "./spool.ts";
import { listWorkspaces, removeWorkspace } from "./workspace.ts";

/** A runner at work. */
export type RunningRunner = {
  /** The runner's did:key. */
  id: string;
  /** First call: no new work, runs finish. Second: runs are stopped and go back to the queue. Third: leave now. */
  stop(): void;
  /** Resolves when the runner has left: its exit code. */
  done: Promise<number>;
};

/** What the caller of a runner provides. `say` gets lines for people. */
export type RunnerEnvironment = { fetch: ClientDeps["fetch"]; say: (line: string) => void };

/** Results that wait for a broker that is away: days of work fit, a disk does not fill. */
const SPOOL_BYTES = 512 * 1024 * 1024;
/** Room that one result may need; without it no work is asked for. */
const SPOOL_FLOOR_BYTES = 2 * LIMITS.resultBytes;
const POLL_KEY = "poll";
/** A runner that has been full this long shows itself by a poll that takes no work, ms. */
const FULL_QUIET_MS = 5_000;
/** A poll that comes back empty before this was not held, ms. */
const EARLY_MS = 1_000;

/** Exit codes of a runner that the broker refuses: for good (`EX_NOPERM` of sysexits.h), or until it is updated. */
export const EXIT_REFUSED = 77;
export const EXIT_TOO_OLD = 7;

type Phase = "working" | "draining" | "stopping" | "leaving";

/** Starts a runner: key, registration, machine, what an earlier process left behind, then the poll loop. A refusal says what to do. */
export async function startRunner(
  options: RunnerOptions,
  { fetch, say }: RunnerEnvironment,
): Promise<RunningRunner | { refused: string }> {
  const parsed = runnerConfigSchema.safeParse(options);
  if (!parsed.success)
    return { refused: parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`).join("; ") };
  const config = parsed.data;
  const folders = runnerFolders(config);
  await mkdir(config.state, { recursive: true, mode: 0o700 });
  const opened = await openSigner(config, folders);
  if ("refused" in opened) return opened;
  const runner = didKeyOf(opened.signer.publicKey);
  if (config.registration !== undefined) {
    const registered = await register(config, config.registration, opened.signer, fetch);
    if (!registered.ok)
      return {
        refused: `The broker did not register this runner: ${registered.problem.detail} ${registered.problem.next}`,
      };
  }
  const probed = await probeMachine(config, opened.signer, runner);
  if ("refused" in probed) return probed;
  const broker = connectBroker({
    baseUrl: config.url,
    namespace: config.namespace,
    runner,
    signer: opened.signer,
    fetch,
  });
  const journal = await openJournal<JournalRecord>(folders.journal, recordReader(journalRecordSchema));
  const spool = await openSpool<SpoolRecord>(folders.spool, recordReader(spoolRecordSchema), SPOOL_BYTES);
  for (const path of [...journal.setAside, ...spool.setAside]) say(`set aside a record that cannot be read: ${path}`);
  say(`runner ${config.name} ${runner}`);
  say(`${probed.findings.join(", ")}; polling ${config.url} as ${config.namespace}`);
  return new Runner({ config, folders, machine: probed.machine, broker, journal, spool, say }).start(runner);
}

/** The loop of one process: who polls, what runs, how it leaves. */
class Runner {
  readonly #deps: RunDeps;
  readonly #active = new Map<string, Promise<void>>();
  readonly #drain = new AbortController();
  readonly #leave = new AbortController();
  readonly #exit = new AbortController();
  readonly #deliverer: Deliverer;
  #phase: Phase = "working";
  #slotFreed = new AbortController();

  constructor(deps: RunDeps) {
    this.#deps = deps;
    this.#deliverer = createDeliverer(deps.broker, deps.spool, this.#exit.signal, deps.say);
  }

  start(id: string): RunningRunner {
    const done = this.#work().then((code) => (this.#exit.signal.aborted ? 1 : code));
    return { id, stop: () => this.#stop(), done: Promise.race([done, this.#exited()]) };
  }

  async #work(): Promise<number> {
    const { journal, spool, folders, say } = this.#deps;
    await this.#recover(journal, folders);
    this.#deliverer.wake();
    const code = await this.#poll();
    await Promise.all(this.#active.values());
    // A result that the broker cannot take now stays in the spool for the next start.
    await this.#deliverer.drained(AbortSignal.timeout(10_000));
    if (spool.pending().length > 0)
      say(
        `${spool.pending().length} results wait in ${folders.spool} for the broker; start the runner again to deliver them`,
      );
    return code;
  }

  /** Runs that an earlier process of this runner had: those that had not started begin again, the others are reported as ended. */
  async #recover(journal: Journal<JournalRecord>, folders: RunnerFolders): Promise<void> {
    const left = [...journal.list().values()].filter((record): record is RunRecord => "assignment" in record);
    // Asked again under a spent key, the broker gives the same assignment again, and its job would run twice at once.
    if (isSpentKey(journal.get(POLL_KEY), left)) await journal.remove(POLL_KEY);
    for (const record of left.filter((one) => one.state === "running")) {
      await abandonRun(this.#deps, record);
      await journal.remove(record.assignment.run);
      this.#deps.say(`run ${record.assignment.run}: ended by a restart of this runner`);
    }
    for (const record of left.filter((one) => one.state === "assigned")) this.#begin(record.assignment);
    const kept = new Set(left.filter((one) => one.state === "assigned").map((one) => one.assignment.run));
    for (const run of await listWorkspaces(folders.workspaces))
      if (!kept.has(run)) await removeWorkspace(folders.workspaces, run);
  }

  async #poll(): Promise<number> {
    const { config, spool, say } = this.#deps;
    const backoff = createBackoff(250, 20_000);
    let quiet = false;
    while (!this.#drain.signal.aborted) {
      const freed = this.#slotFreed.signal;
      if (this.#active.size >= config.capacity)
        await pause(FULL_QUIET_MS, AbortSignal.any([freed, this.#drain.signal]));
      if (freed.aborted || this.#drain.signal.aborted) continue;
      const full = this.#active.size >= config.capacity;
      // A full runner polls too, so that the fleet shows it; a freed slot breaks that poll off and asks again under the same key.
      const interrupted = full ? AbortSignal.any([freed, this.#drain.signal]) : this.#drain.signal;
      if (spool.freeBytes() < SPOOL_FLOOR_BYTES) {
        say("the spool is full of results that the broker has not taken; not asking for work");
        await pause(10_000, this.#drain.signal);
        continue;
      }
      const askedAt = performance.now();
      const answer = await this.#ask(await this.#requestKey(), LIMITS.pollHoldMs, interrupted);
      if (interrupted.aborted && !answer.ok) continue;
      if (!answer.ok && !answer.retry) {
        say(`the broker refuses this runner: ${answer.problem.detail} ${answer.problem.next}`);
        return answer.problem.code === "protocol-too-old" ? EXIT_TOO_OLD : EXIT_REFUSED;
      }
      if (!answer.ok) {
        if (!quiet) say(`the broker cannot be reached (${answer.problem.detail}); trying again`);
        quiet = true;
        await pause(backoff.next(), this.#drain.signal);
        continue;
      }
      if (quiet) say("the broker answers again");
      quiet = false;
      backoff.reset();
      if (answer.value === null) {
        // Another poll took this one's place, or the pool is restarting: a null that comes early must not become a busy loop.
        if (performance.now() - askedAt < EARLY_MS) await pause(backoff.next(), this.#drain.signal);
        continue;
      }
      await this.#accept(answer.value);
      if (config.once) break;
    }
    await this.#returnLostAssignment();
    return 0;
  }

  async #ask(requestKey: string, waitMs: number, signal: AbortSignal): Promise<BrokerAnswer<Assignment | null>> {
    const { broker, machine } = this.#deps;
    const pool = await broker.pool();
    if (!pool.ok) return pool;
    const body = {
      requestKey,
      protocol: PROTOCOL_VERSION,
      pool: pool.value,
      offer: machine.offer,
      busy: this.#active.size,
      waitMs,
    };
    return broker.poll(body, signal);
  }

  /** The key under which work is asked for, on disk before it is used; it is kept until an assignment came under it. */
  async #requestKey(): Promise<string> {
    const { journal } = this.#deps;
    const known = journal.get(POLL_KEY);
    if (known !== undefined && "requestKey" in known) return known.requestKey;
    const requestKey = randomUUID();
    await journal.put(POLL_KEY, { requestKey });
    return requestKey;
  }

  async #accept(assignment: Assignment): Promise<void> {
    const { journal } = this.#deps;
    // A crash before the key is gone brings the same assignment again, for a run that the journal has begun already.
    if (!this.#active.has(assignment.run)) {
      await journal.put(assignment.run, { assignment, state: "assigned", startedAt: null });
      this.#begin(assignment);
    }
    await journal.remove(POLL_KEY);
  }

  #begin(assignment: Assignment): void {
    const { say } = this.#deps;
    say(`run ${assignment.run}: ${assignment.deployment} (${assignment.spec.task.kind})`);
    const run = executeRun(this.#deps, assignment, this.#leave.signal, () => this.#deliverer.wake())
      .catch((error: unknown) => say(`run ${assignment.run}: ${String(error)}`))
      .finally(() => {
        this.#active.delete(assignment.run);
        this.#slotFreed.abort();
        this.#slotFreed = new AbortController();
      });
    this.#active.set(assignment.run, run);
  }

  /**
   * An answer that was under way when the poll was broken off may hold an assignment. Asking once more under the same key brings it back, and
   * it is refused at once instead of waiting for the acknowledge deadline.
   */
  async #returnLostAssignment(): Promise<void> {
    const { journal } = this.#deps;
    const known = journal.get(POLL_KEY);
    if (known === undefined || !("requestKey" in known)) return;
    const answer = await this.#ask(known.requestKey, 0, AbortSignal.timeout(2_000));
    if (answer.ok && answer.value !== null) {
      await abandonRun(this.#deps, { assignment: answer.value, startedAt: null });
      this.#deliverer.wake();
    }
    await journal.remove(POLL_KEY);
  }

  #stop(): void {
    const { say } = this.#deps;
    switch (this.#phase) {
      case "working":
        this.#phase = "draining";
        say(
          this.#active.size === 0
            ? "leaving"
            : `no new work; waiting for ${this.#active.size === 1 ? "1 run" : `${this.#active.size} runs`} (stop again to end)`,
        );
        return this.#drain.abort();
      case "draining":
        this.#phase = "stopping";
        say("ending the runs (stop again to leave at once)");
        return this.#leave.abort();
      case "stopping":
        this.#phase = "leaving";
        return this.#exit.abort();
      case "leaving":
        return;
    }
  }

  #exited(): Promise<number> {
    return new Promise((resolve) => this.#exit.signal.addEventListener("abort", () => resolve(1), { once: true }));
  }
}
