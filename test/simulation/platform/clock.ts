import { AsyncLocalStorage } from "node:async_hooks";

/**
 * A process of the simulated world: an instance of an object, an isolate of the edge, a runner, a person's client. When it is not alive any
 * more nothing of it runs again: its timers do not fire, and what it waits for never comes.
 */
export type Owner = {
  readonly name: string;
  alive: boolean;
  /** How far its wall clock is off, ms. */
  skewMs: number;
  /** Timers that have not fired. One keeps an object in memory. */
  timerCount: number;
  /** What an error that nobody catches does to it. */
  crashed: (error: unknown) => void;
};

/** On whose behalf code runs. `stranger`: a caller without a valid credential began it, so it may change nothing that is stored. */
export type Context = { owner: Owner; stranger: boolean };

/** Something that is going to happen. */
export type Scheduled = { readonly at: number; readonly order: number; run: (() => void) | null };

/** A process that has just begun. */
export function newOwner(name: string, skewMs = 0): Owner {
  const crashed = (error: unknown): void => {
    throw error;
  };
  return { name, alive: true, skewMs, timerCount: 0, crashed };
}

const contexts = new AsyncLocalStorage<Context>();

/** Runs code on somebody's behalf; so does everything that it begins. */
export function runAs<T>(context: Context, work: () => T): T {
  return contexts.run(context, work);
}

/** On whose behalf this runs; null for the simulation itself. */
export function currentContext(): Context | null {
  return contexts.getStore() ?? null;
}

/** 2026-01-05T08:00:00Z: every world begins here. */
const BEGIN_MS = 1_767_600_000_000;

// The platform's own, taken before they are replaced.
const nextTurn = globalThis.setImmediate;

/**
 * The time of a world, and what is going to happen in it. Nothing waits for real time: time is where the next thing is. Things that happen at
 * the same time happen in the order in which they were scheduled, so that a seed has one history.
 */
export class Clock {
  now = BEGIN_MS;
  stepCount = 0;
  readonly #heap: Scheduled[] = [];
  #order = 0;

  /** Milliseconds since the world began. */
  get elapsedMs(): number {
    return this.now - BEGIN_MS;
  }

  after(ms: number, run: () => void): Scheduled {
    const scheduled = { at: this.now + Math.max(0, ms), order: (this.#order += 1), run };
    this.#push(scheduled);
    return scheduled;
  }

  /** Calls back in the context of the caller, unless its owner is gone by then. */
  timer(ms: number, run: () => void): Scheduled {
    const context = currentContext();
    if (context === null) return this.after(ms, run);
    const { owner } = context;
    owner.timerCount += 1;
    const scheduled = this.after(ms, () => {
      owner.timerCount -= 1;
      if (!owner.alive) return;
      try {
        runAs(context, run);
      } catch (error) {
        owner.crashed(error);
      }
    });
    return Object.assign(scheduled, { owner });
  }

  cancel(scheduled: Scheduled & { owner?: Owner }): void {
    if (scheduled.run === null) return;
    scheduled.run = null;
    if (scheduled.owner !== undefined) scheduled.owner.timerCount -= 1;
  }

  /** Lets the next thing happen, and everything that follows from it at once. False when nothing is going to happen before `until`. */
  async step(until: number): Promise<boolean> {
    let next = this.#heap[0];
    while (next !== undefined && next.run === null) {
      this.#pop();
      next = this.#heap[0];
    }
    if (next === undefined || next.at > until) return false;
    this.#pop();
    this.now = next.at;
    this.stepCount += 1;
    const run = next.run;
    next.run = null;
    run?.();
    await this.turn();
    if (this.stepCount % LOOK_STEPS === 0) refuseReality();
    return true;
  }

  /** One turn of the real event loop, which empties the queue of promises. */
  turn(): Promise<void> {
    return new Promise((resolve) => nextTurn(resolve));
  }

  #push(entry: Scheduled): void {
    const heap = this.#heap;
    let place = heap.push(entry) - 1;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      const above = heap[parent];
      if (above === undefined || isBefore(above, entry)) break;
      heap[place] = above;
      place = parent;
    }
    heap[place] = entry;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let place = 0;
    for (;;) {
      let child = 2 * place + 1;
      const left = heap[child];
      if (left === undefined) break;
      const right = heap[child + 1];
      if (right !== undefined && isBefore(right, left)) child += 1;
      const smaller = heap[child];
      if (smaller === undefined || isBefore(last, smaller)) break;
      heap[place] = smaller;
      place = child;
    }
    heap[place] = last;
  }
}

/** How often is looked whether something waits for the real world, in steps. */
const LOOK_STEPS = 32;

/** What takes its time outside of the simulation would come back at another place in each run of a seed. */
function refuseReality(): void {
  const found = process.getActiveResourcesInfo().find((name) => /FSReq|Process|TCP|GetAddrInfo|Job|Timeout/.test(name));
  if (found !== undefined) throw new Error(`something waits for the real world: ${found}`);
}

function isBefore(a: Scheduled, b: Scheduled): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}
