import nodeCrypto from "node:crypto";
import { syncBuiltinESMExports } from "node:module";
import { type Clock, currentContext, type Scheduled } from "./clock.ts";
import { computerOf } from "./computer.ts";
import { createCrypto } from "./crypto.ts";
import { SimulatedRequest, SimulatedResponse } from "./http.ts";
import type { World } from "./world.ts";
import { SimulatedWebSocket, SocketPair } from "./sockets.ts";

/** The world that this process simulates now: globals have no other way to find it. */
let current: World | null = null;

/** Lets the globals of this process belong to a world. */
export function enterWorld(world: World): void {
  current = world;
}

/** The world of this process. */
export function currentWorld(): World {
  return world();
}

function world(): World {
  if (current === null) throw new Error("no world is simulated");
  return current;
}

const SLOW_DIGEST_MS = 50;
const MEMORY_BYTES = 2 ** 36;

const RealDate = Date;

class SimulatedDate extends RealDate {
  constructor(...of: []) {
    super(...((of.length === 0 ? [SimulatedDate.now()] : of) as []));
  }
  static override now(): number {
    return Math.floor(world().clock.now + (currentContext()?.owner.skewMs ?? 0));
  }
}

/** A timer as Node gives it. */
class Timeout {
  scheduled: Scheduled;
  readonly #clock: Clock;
  readonly #ms: number;
  readonly #run: () => void;

  constructor(clock: Clock, ms: number, run: () => void) {
    this.#clock = clock;
    this.#ms = Math.max(1, ms);
    this.#run = run;
    this.scheduled = clock.timer(this.#ms, run);
  }

  refresh(): this {
    this.#clock.cancel(this.scheduled);
    this.scheduled = this.#clock.timer(this.#ms, this.#run);
    return this;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  hasRef(): boolean {
    return true;
  }
}

/**
 * Replaces what a process has of time, chance, network and threads. It happens once, before any code of the product is loaded: from then on that
 * code runs as it is, and knows nothing of it.
 */
export function replaceGlobals(): void {
  const { clock, entropy } = { clock: () => world().clock, entropy: () => world().entropy };
  const every = (run: () => void, wantedMs: number): Timeout => {
    const owner = currentContext()?.owner;
    // The disk tells machines of changes. That they look all the same, twice a second, would be most of what happens in a world.
    const ms = owner !== undefined && computerOf(owner) !== undefined ? 10 * wantedMs : wantedMs;
    const handle = new Timeout(clock(), ms, () => {
      handle.refresh();
      run();
    });
    return handle;
  };
  const wait = (ms: number): Promise<void> => new Promise((resolve) => clock().timer(ms, resolve));
  const replacement = {
    Date: SimulatedDate,
    setTimeout: (run: (...args: unknown[]) => void, ms = 0, ...args: unknown[]) =>
      new Timeout(clock(), ms, () => run(...args)),
    setInterval: every,
    clearTimeout: (handle?: { scheduled: Scheduled } | null) => handle && clock().cancel(handle.scheduled),
    clearInterval: (handle?: { scheduled: Scheduled } | null) => handle && clock().cancel(handle.scheduled),
    scheduler: { wait },
    Request: SimulatedRequest,
    Response: SimulatedResponse,
    WebSocket: SimulatedWebSocket,
    WebSocketPair: SocketPair,
    WebSocketRequestResponsePair: class {
      readonly request: string;
      readonly response: string;
      constructor(request: string, response: string) {
        this.request = request;
        this.response = response;
      }
    },
    reportError: (error: unknown) => world().fault(error),
    crypto: createCrypto(entropy, () =>
      world().faults.strikes("slow digest") ? wait(world().timing.next() * SLOW_DIGEST_MS) : null,
    ),
  };
  for (const [name, value] of Object.entries(replacement))
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  // The edge logs its faults there.
  Object.assign(console, {
    log: (line: unknown) => world().note(String(line)),
    error: (line: unknown) => world().note(String(line)),
  });
  Object.assign(performance, { now: () => clock().elapsedMs });
  // Every machine has memory enough, whatever the one that simulates it is short of.
  Object.assign(process, { availableMemory: () => MEMORY_BYTES, constrainedMemory: () => MEMORY_BYTES });
  Object.assign(Math, { random: () => entropy().next() });
  Object.assign(AbortSignal, { timeout: (ms: number) => timeoutSignal(clock(), ms) });
  Object.assign(nodeCrypto, { randomUUID: () => globalThis.crypto.randomUUID() });
  syncBuiltinESMExports();
}

function timeoutSignal(clock: Clock, ms: number): AbortSignal {
  const over = new AbortController();
  clock.timer(ms, () => over.abort(new DOMException("The operation was aborted due to timeout", "TimeoutError")));
  return over.signal;
}
