import type { Reason, RunId } from "@plumule/protocol";
import { type Decided, type Effect, type Input, type RunRecord, written } from "../../runner/src/core/model.ts";
import type { Found } from "../../runner/src/core/recover.ts";
import { always } from "./always.ts";
import type { Core } from "./core.ts";
import { PoolStep } from "./pool.ts";
import type { Scope } from "./scopes.ts";
import { withPool } from "./step.ts";
import type { Process, Result, RunnerModel, World } from "./world.ts";

const RUNNER_STOPPED: Reason = { code: "runner-stopped", detail: "The runner was restarted." };
const WRITES = new Set<Effect["do"]>(["store key", "forget key", "store run", "forget run", "spool", "unspool"]);

/** What goes wrong at the n-th write (from 1) of a decision: the process is killed right before or after it, or the disk refuses it. */
export type Fault = { kind: "killed before" | "killed after" | "refused"; at: number };

/** A runner by its id. */
export function runnerOf(world: World, id: string): RunnerModel {
  const runner = world.runners.find((one) => one.id === id);
  if (runner === undefined) throw new Error(`no runner ${id}`);
  return runner;
}

/** Changes a runner. */
export function withRunner(world: World, id: string, over: Partial<RunnerModel>): World {
  return { ...world, runners: world.runners.map((one) => (one.id === id ? { ...one, ...over } : one)) };
}

/** Changes the supervisors of a run. */
export function withProcess(world: World, id: string, run: RunId, change: (one: Process) => Process | null): World {
  const processes = runnerOf(world, id).processes.flatMap((one) => (one.run === run ? (change(one) ?? []) : [one]));
  return withRunner(world, id, { processes });
}

/** The process of a runner is gone. Supervisors that work go on; what was on its way to it is lost. */
export function crash(core: Core, world: World, id: string): World {
  const { processes } = runnerOf(world, id);
  const left = processes.filter(({ state }) => state !== "waiting" || !core.machine.sweeps);
  return tidy(withRunner(world, id, { memory: null, going: [], reply: null, processes: left, sentBytes: 0 }), id);
}

/** Forgets assignments that are neither on the disk nor in memory, and what was asked for runs that are over: its answers change nothing. */
function tidy(world: World, id: string): World {
  const { disk, memory, leases, going } = runnerOf(world, id);
  const live = (memory?.runs ?? []).flatMap(({ run, stage }) => (stage === "ended" ? [] : [run]));
  const known = new Set([...disk.spool, ...live, ...disk.runs.map(({ run }) => run)]);
  return withRunner(world, id, {
    leases: leases.filter(({ run }) => known.has(run)),
    going: going.filter((one) => one.do === "poll" || one.do === "deliver" || live.includes(one.run)),
  });
}

/**
 * The machine of one runner while it carries out one decision, and what follows from it there by itself: a result is kept, a supervisor becomes
 * ready.
 */
export class Machine {
  readonly #core: Core;
  readonly #scope: Scope;
  readonly #id: string;
  readonly #fault: Fault | null;
  #answered: RunId | null = null;
  #writeCount = 0;

  constructor(core: Core, scope: Scope, id: string, fault: Fault | null = null) {
    this.#core = core;
    this.#scope = scope;
    this.#id = id;
    this.#fault = fault;
  }

  /** Whether what was carried out had no place for the fault: then it is what happens without it. */
  get isSpared(): boolean {
    return this.#writeCount < (this.#fault?.at ?? 0);
  }

  /** Something happens to the runner, whose process is up. */
  tell(world: World, input: Input): World {
    if (input.type === "result answered" && input.final) this.#answered = input.run;
    return this.#whole(world, this.#decide(world, input));
  }

  /** The runner's process starts again, from its disk and from the supervisors that it finds. */
  restart(world: World): World {
    const { disk, processes } = runnerOf(world, this.#id);
    const found = ({ supervisor }: RunRecord): Found => {
      const state = processes.find(({ pid }) => pid === supervisor?.pid)?.state;
      return state === "working" ? "alive" : state === "ended" ? "ended" : "gone";
    };
    // What an earlier process had not cleared away is cleared now.
    const named = new Set(disk.runs.map(({ run }) => run));
    const left = processes.filter(({ run, state }) => named.has(run) || state === "working" || state === "waiting");
    return this.#whole(withRunner(world, this.#id, { processes: left }), this.#core.runner.recover(disk, found));
  }

  #whole(world: World, decided: Decided): World {
    return tidy(this.#carry(world, decided), this.#id);
  }

  #carry(world: World, { memory, effects }: Decided): World {
    let after = withRunner(world, this.#id, { memory });
    const inputs: Input[] = [];
    for (const effect of effects) {
      const isFault = WRITES.has(effect.do) && (this.#writeCount += 1) === this.#fault?.at;
      if (isFault && this.#fault?.kind === "refused")
        return this.#carry(after, this.#decide(after, { type: "write refused", effect }));
      if (!isFault || this.#fault?.kind === "killed after") after = this.#perform(after, effect, inputs);
      if (isFault) return crash(this.#core, after, this.#id);
    }
    for (const input of inputs)
      if (runnerOf(after, this.#id).memory !== null) after = this.#carry(after, this.#decide(after, input));
    return after;
  }

  #decide(world: World, input: Input): Decided {
    const { memory } = runnerOf(world, this.#id);
    if (memory === null) throw new Error(`${this.#id} is down`);
    return this.#core.runner.step(memory, input);
  }

  #perform(world: World, effect: Effect, inputs: Input[]): World {
    const runner = runnerOf(world, this.#id);
    const after = withRunner(world, this.#id, { disk: written(runner.disk, effect) });
    const set = (over: Partial<RunnerModel>): World => withRunner(after, this.#id, over);
    const process = (change: (one: Process) => Process | null): World =>
      "run" in effect ? withProcess(after, this.#id, effect.run, change) : after;
    switch (effect.do) {
      case "poll":
        return this.#poll(
          runner,
          set({ going: [...runner.going.filter((one) => one.do !== "poll"), effect] }),
          effect.key,
        );
      case "heartbeat":
      case "deliver":
        return set({
          going: [...runner.going.filter((one) => one.do !== effect.do || one.run !== effect.run), effect],
        });
      case "prepare":
        return this.#prepare(runner, effect.run, (over) => set({ ...over, sentBytes: 0 }), inputs);
      case "begin":
        return process((one) => (one.state === "waiting" ? { ...one, state: "working" } : one));
      case "stop":
        if (effect.order.leaseLost)
          return process((one) => (one.state === "working" ? { ...one, state: "ended", outcome: "cancelled" } : one));
        return process((one) => (one.state === "working" ? { ...one, ordered: true } : one));
      case "kill":
        return process((one) =>
          one.state === "waiting" ? null : one.state === "working" ? { ...one, state: "killed" } : one,
        );
      case "discard":
        return process(() => null);
      case "forget run": {
        const begun = runner.processes.some(({ run, state }) => run === effect.run && state !== "waiting");
        const isKept = !begun || runner.disk.spool.includes(effect.run);
        always(isKept, "P16 a run that began is in the journal until its result is in the spool", effect.run);
        return after;
      }
      case "spool":
        inputs.push({ type: "result kept", run: effect.run });
        return set({ results: [...runner.results, resultOf(runner, effect)] });
      case "unspool":
        always(this.#answered === effect.run, "P16 a result is in the spool until the broker answered", effect.run);
        return set({ results: runner.results.filter(({ lease }) => lease.run !== effect.run) });
      default:
        return after;
    }
  }

  #poll({ id, disk }: RunnerModel, world: World, key: string): World {
    always(disk.key === key, "P16 a key is on the disk before it is used", key);
    const pool = new PoolStep(world.pool);
    pool.poll({ runner: id, key });
    return withPool(world, pool);
  }

  #prepare(
    { nameCount, processes, going }: RunnerModel,
    run: RunId,
    set: (over: Partial<RunnerModel>) => World,
    inputs: Input[],
  ): World {
    const pid = nameCount + 1;
    const one: Process = {
      run,
      pid,
      state: "waiting",
      applying: false,
      ordered: false,
      outcome: null,
      content: "true",
      logBytes: 0,
      batch: { takenCount: 0, pending: null },
    };
    const more = { nameCount: pid, processes: [...processes, one] };
    if (this.#scope.isSlow) return set({ ...more, going: [...going, { do: "prepare", run }] });
    inputs.push({ type: "supervisor ready", run, supervisor: supervisorOf(one) });
    return set(more);
  }
}

/** A supervisor as its runner names it. */
export function supervisorOf({ pid }: Process): { version: number; pid: number; startedAt: string; boot: string } {
  return { version: 1, pid, startedAt: "", boot: "" };
}

function resultOf({ leases, processes }: RunnerModel, { run, end }: Extract<Effect, { do: "spool" }>): Result {
  const lease = leases.find((one) => one.run === run);
  if (lease === undefined) throw new Error(`the assignment of ${run} is lost`);
  const process = processes.find((one) => one.run === run && one.state !== "waiting");
  const applied = process?.applying === true;
  const content = process?.content ?? "true";
  const { logBytes, batch } = process ?? { logBytes: 0, batch: { takenCount: 0, pending: null } };
  if (end !== "seen") return { lease, outcome: "refused", content, reason: RUNNER_STOPPED, applied, batch, logBytes };
  always(process?.state === "ended", "P9 a result says what was seen", run);
  return { lease, outcome: process?.outcome ?? "refused", content, reason: null, applied, batch, logBytes };
}

/** A runner whose process is up learns that a supervisor has ended. */
export function hearsEnd(machine: Machine, world: World, id: string, run: string): World {
  const state = runnerOf(world, id).processes.find((one) => one.run === run)?.state;
  return machine.tell(world, { type: "supervisor ended", run, seen: state === "ended" });
}

/**
 * The lease of a run is over, so it was over for its runner before: a runner counts from when it asked, the broker from when it answered. The
 * supervisor counts by itself and has ended the work; its runner, when it is up, has heard of both.
 */
export function fence(core: Core, scope: Scope, world: World, epoch: number): World {
  let after = world;
  for (const { id, leases } of world.runners) {
    const run = leases.find((lease) => lease.epoch === epoch)?.run;
    if (run === undefined) continue;
    if (core.machine.fences)
      after = withProcess(after, id, run, (one) =>
        one.state === "working" ? { ...one, state: "ended", outcome: "cancelled" } : one,
      );
    const { memory, processes } = runnerOf(after, id);
    const machine = new Machine(core, scope, id);
    if (memory?.runs.some((one) => one.run === run && one.lease === "held") === true)
      after = machine.tell(after, { type: "lease ended", run });
    if (memory !== null && processes.some((one) => one.run === run && one.state === "ended"))
      after = hearsEnd(machine, after, id, run);
  }
  return after;
}

/** Every runner that has room asks for work at once, so that nobody is ever between two polls. */
export function eager(core: Core, scope: Scope, world: World): World {
  let after = world;
  for (const { id } of world.runners) {
    const { memory, going, nameCount } = runnerOf(after, id);
    if (memory === null || memory.runs.length > 0 || memory.intent !== "work") continue;
    const poll = going.find((one) => one.do === "poll");
    const isParked = after.pool.polls.some((one) => one.runner === id && one.key === poll?.key);
    if (poll !== undefined && (isParked || runnerOf(after, id).reply !== null)) continue;
    const machine = new Machine(core, scope, id);
    const free = withRunner(after, id, { nameCount: nameCount + 1, going: going.filter((one) => one !== poll) });
    const failed = poll === undefined ? free : machine.tell(free, { type: "poll failed", key: poll.key, last: false });
    after = machine.tell(failed, { type: "work wanted", freshKey: `${id}/${nameCount + 1}` });
  }
  return after;
}
