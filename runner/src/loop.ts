import { randomUUID } from "node:crypto";
import type { Assignment, Envelope, ExecCall, RunnerOrder } from "@plumule/protocol";
import { createBackoff, pause } from "./backoff.ts";
import type { BrokerAnswer, StandaloneCalls } from "./broker.ts";
import { type Decided, type Effect, type Input, mayLeave, type Memory } from "./core/model.ts";
import { recover } from "./core/recover.ts";
import { step } from "./core/step.ts";
import { createDeliverer, type Deliverer } from "./deliver.ts";
import { RUNNER_EXIT, type RunnerExit } from "./exit-codes.ts";
import type { Counters } from "./health/counters.ts";
import { observe } from "./health/observe.ts";
import type { HealthServer } from "./health/server.ts";
import type { RunnerStatus } from "./health/status.ts";
import { Hands, type HandsDeps } from "./hands.ts";
import { readDisk } from "./records.ts";
import { lackOf } from "./room.ts";
import { publishRecipient } from "./secrets/identity.ts";
import type { Desk } from "./standalone/desk.ts";
import { fillIn, untilTold } from "./standalone/fill-in.ts";
import type { StateLock } from "./state-lock.ts";

/** A runner at work. */
export type RunningRunner = {
  /** The runner's did:key. */
  id: string;
  /** The port at which it can be asked how it is; null when there is none. */
  healthPort: number | null;
  /** How it is at this moment. */
  status(): Promise<RunnerStatus>;
  /** First call: no new work, runs finish. Second: runs are stopped and go back to the queue. Third: leave now. */
  stop(): void;
  /** Leave now and let the runs go on: the next start of this runner follows them, and without one they end with their leases. */
  leaveRuns(): void;
  /** The jobs that it gives itself; null when it follows no repository. */
  desk: Desk | null;
  /** Resolves when the runner has left: its exit code. */
  done: Promise<RunnerExit>;
};

/** A runner that has been full this long shows itself by a poll that takes no work, ms. */
const FULL_QUIET_MS = 5_000;
/** A poll that comes back empty before this was not held, ms. */
const EARLY_MS = 1_000;

/** Between two looks whether there is room again, ms. */
const LACK_MS = 10_000;

/** How long a runner that leaves tries to deliver what it has, ms. What the broker cannot take then stays in the spool for the next start. */
const LAST_DELIVERY_MS = 10_000;
/** Between two tries to put a result on a disk that refuses it, ms. */
const SPOOL_AGAIN_MS = 5_000;

/** What the loop is made of. */
export type LoopDeps = Omit<HandsDeps, "tell" | "deliver" | "interrupt" | "polled"> & {
  /** The broker itself, for what the runner has done without it. */
  remote: StandaloneCalls | null;
  desk: Desk | null;
  lock: StateLock;
  recipient: Envelope;
  counters: Counters;
};

/** The loop of one process: it feeds the core with what happens, has its effects carried out one after the other, and knows when to wait. */
export class Loop {
  readonly #deps: LoopDeps;
  readonly #hands: Hands;
  readonly #deliverer: Deliverer;
  readonly #drain = new AbortController();
  readonly #exit = new AbortController();
  readonly #mayLeave = Promise.withResolvers<void>();
  #memory: Memory = { intent: "work", key: null, asking: false, runs: [], spool: [] };
  #carried: Promise<void> = Promise.resolve();
  #answer = Promise.withResolvers<BrokerAnswer<Assignment | null> | null>();
  #slotFreed = new AbortController();
  #phase: RunnerStatus["phase"] = "working";
  #drained: RunnerOrder["drain"] = null;
  #deadline: NodeJS.Timeout | undefined;
  readonly #startedAt = performance.now();
  #turnedAt = performance.now();

  constructor(deps: LoopDeps) {
    this.#deps = deps;
    const { broker, spool, say } = deps;
    this.#hands = new Hands({
      ...deps,
      tell: (input) => void this.#tell(input),
      deliver: () => this.#deliverer.wake(),
      // A full runner polls too, so that the fleet shows it; a freed slot breaks that poll off and asks again under the same key.
      interrupt: () =>
        this.#isFull() ? AbortSignal.any([this.#slotFreed.signal, this.#drain.signal]) : this.#drain.signal,
      polled: (answer) => this.#answer.resolve(answer),
    });
    this.#deliverer = createDeliverer({
      broker,
      spool,
      stopped: this.#exit.signal,
      say,
      answered: (run, final) => this.#tell({ type: "result answered", run, final }),
    });
  }

  /** Begins with what an earlier process left. Of `health` it is the owner from here on. */
  start(id: string, health: HealthServer | null): RunningRunner {
    const done = this.#work().finally(() => health?.close());
    const status = (): Promise<RunnerStatus> => this.status();
    return {
      id,
      healthPort: health?.port ?? null,
      status,
      stop: () => this.#stop(),
      leaveRuns: () => this.#leaveRuns(),
      desk: this.#deps.desk,
      done,
    };
  }

  /** Somebody wants to be let in. */
  readonly called = (call: ExecCall): void => this.#hands.called(call);

  /** How it is at this moment. */
  status(): Promise<RunnerStatus> {
    const [phase, startedAt, turnedAt] = [this.#phase, this.#startedAt, this.#turnedAt];
    const drain = this.#drained === null ? null : { note: this.#drained.note, end: this.#drained.end };
    return observe(this.#deps, { phase, startedAt, turnedAt, drain, runs: this.#memory.runs });
  }

  async #work(): Promise<RunnerExit> {
    const { journal, spool, supervisors, lock, desk, remote: broker, say } = this.#deps;
    const left = recover(readDisk(journal, spool), (record) => this.#hands.find(record));
    await this.#hands.sweep();
    supervisors.refill();
    void publishRecipient(this.#deps, this.#exit.signal);
    if (desk !== null && broker !== null) void fillIn({ desk, broker, say }, this.#exit.signal);
    void this.#take(left);
    const code = await this.#poll();
    await this.#mayLeave.promise;
    await this.#carried;
    if (this.#memory.intent !== "leave") await this.#deliverAll();
    await this.#carried;
    this.#exit.abort();
    await this.#hands.leave();
    await supervisors.close();
    this.#sayWhatWaits();
    await lock.release();
    return this.#phase === "leaving" ? RUNNER_EXIT.failed : code;
  }

  async #deliverAll(): Promise<void> {
    const { desk, remote } = this.#deps;
    const late = AbortSignal.timeout(LAST_DELIVERY_MS);
    await this.#deliverer.drained(late);
    if (desk !== null && remote !== null) await untilTold(desk, late);
  }

  #sayWhatWaits(): void {
    const { spool, folders, say } = this.#deps;
    const count = spool.pending().length;
    if (count > 0)
      say(`${count} results wait in ${folders.spool} for the broker; start the runner again to deliver them`);
  }

  /** Resolves when what follows from the input was carried out. */
  #tell(input: Input): Promise<void> {
    return this.#take(step(this.#memory, input));
  }

  #take({ memory, effects }: Decided): Promise<void> {
    const before = this.#memory.runs.length;
    this.#memory = memory;
    if (memory.runs.length < before) {
      this.#slotFreed.abort();
      this.#slotFreed = new AbortController();
    }
    if (effects.length > 0) this.#carried = this.#carried.then(() => this.#carryOut(effects));
    if (mayLeave(memory)) this.#mayLeave.resolve();
    return this.#carried;
  }

  async #carryOut(effects: readonly Effect[]): Promise<void> {
    for (const effect of effects) {
      try {
        await this.#hands.carryOut(effect);
      } catch (error) {
        this.#deps.say(`${effect.do}: ${String(error)}`);
        if (effect.do === "store key") this.#answer.resolve(null);
        const refused = (): void => void this.#tell({ type: "write refused", effect });
        if (effect.do !== "spool") return refused();
        // A disk that is full now is full in a moment.
        setTimeout(refused, SPOOL_AGAIN_MS).unref();
        return;
      }
    }
  }

  #isFull(): boolean {
    return this.#memory.runs.length >= this.#deps.config.capacity;
  }

  async #poll(): Promise<RunnerExit> {
    const { config, desk, spool, say } = this.#deps;
    const backoff = createBackoff(250, 20_000);
    let said: string | null = null;
    let quiet = false;
    while (!this.#drain.signal.aborted) {
      const freed = this.#slotFreed.signal;
      if (this.#isFull()) await pause(FULL_QUIET_MS, AbortSignal.any([freed, this.#drain.signal]));
      if (freed.aborted || this.#drain.signal.aborted) continue;
      this.#turnedAt = performance.now();
      const lack = await lackOf(config, spool);
      if (lack !== said && lack !== null) say(`${lack}; not asking for work`);
      said = lack;
      if (lack !== null) {
        await pause(LACK_MS, this.#drain.signal);
        continue;
      }
      // A runner that was told to leave meanwhile asks for nothing, and nobody would answer.
      if (this.#drain.signal.aborted) continue;
      const askedAt = performance.now();
      const answer = await this.#ask();
      if (answer === null || (!answer.ok && (freed.aborted || this.#drain.signal.aborted))) {
        if (answer === null) await pause(backoff.next(), this.#drain.signal);
        continue;
      }
      if (!answer.ok && !answer.retry) {
        say(`the broker refuses this runner: ${answer.problem.detail} ${answer.problem.next}`);
        this.#begin("draining");
        return answer.problem.code === "protocol-too-old" ? RUNNER_EXIT.outdated : RUNNER_EXIT.refused;
      }
      if (!answer.ok) {
        if (!quiet) say(`the broker cannot be reached (${answer.problem.detail}); trying again`);
        quiet = true;
        // Work of the runner's own does not wait until the broker can be asked again.
        await pause(backoff.next(), AbortSignal.any([this.#drain.signal, desk?.arrival() ?? this.#drain.signal]));
        continue;
      }
      if (quiet) say("the broker answers again");
      quiet = false;
      backoff.reset();
      // Another poll took this one's place, or the pool is restarting: a null that comes early must not become a busy loop.
      if (answer.value === null && performance.now() - askedAt < EARLY_MS)
        await pause(backoff.next(), this.#drain.signal);
      if (answer.value !== null && config.once) void this.#tell({ type: "told to stop" });
      if (this.#memory.intent !== "work") break;
    }
    return RUNNER_EXIT.ok;
  }

  /** One poll. Null: it could not be asked, because the disk did not take its key. */
  #ask(): Promise<BrokerAnswer<Assignment | null> | null> {
    this.#answer = Promise.withResolvers();
    void this.#tell({ type: "work wanted", freshKey: randomUUID() });
    return this.#answer.promise;
  }

  #begin(phase: RunnerStatus["phase"]): void {
    this.#phase = phase;
    this.#drain.abort();
    if (phase !== "draining" || this.#memory.intent === "work") void this.#tell({ type: "told to stop" });
  }

  #stop(): void {
    const { say } = this.#deps;
    const count = this.#memory.runs.length;
    switch (this.#phase) {
      case "working":
        say(count === 0 ? "leaving" : `no new work; waiting for ${runsOf(count)} (stop again to end)`);
        return this.#begin("draining");
      case "draining":
        say("ending the runs (stop again to leave at once)");
        return this.#begin("stopping");
      case "stopping":
        return this.#begin("leaving");
      case "leaving":
        return;
    }
  }

  /** What the broker wants: no new work, an end of its runs when the deadline is over, and then to leave or to wait. */
  obey({ drain }: RunnerOrder): void {
    const { say } = this.#deps;
    clearTimeout(this.#deadline);
    this.#drained = drain;
    if (drain === null) return say("the broker gives this runner work again");
    const { note, deadlineMs, end } = drain;
    const runs = runsOf(this.#memory.runs.length);
    const until = deadlineMs === null ? "" : ` within ${Math.round(deadlineMs / 1000)} s`;
    say(`drained${note === null ? "" : ` (${note})`}: ${runs} may end${until}, then the runner ${end}s`);
    if (end === "exit" && this.#phase === "working") this.#begin("draining");
    if (deadlineMs === null) return;
    this.#deadline = setTimeout(() => {
      if (this.#memory.runs.length > 0) say("the time of the drain is over; its runs go back to the queue");
      void this.#tell({ type: "told to end the runs" });
    }, deadlineMs).unref();
  }

  #leaveRuns(): void {
    const count = this.#memory.runs.length;
    this.#deps.say(count === 0 ? "leaving" : `leaving ${runsOf(count)} to the next start of this runner`);
    this.#drain.abort();
    void this.#tell({ type: "told to leave the runs" });
  }
}

function runsOf(count: number): string {
  return count === 1 ? "1 run" : `${count} runs`;
}
