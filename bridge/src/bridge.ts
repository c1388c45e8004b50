import { join } from "node:path";
import { type ClientDeps, type Signer } from "@plumule/protocol";
import { createCourier } from "./courier.ts";
import { readFollowed } from "./followed.ts";
import type { Finding, Telling } from "./look.ts";
import type { BridgeOptions } from "./options.ts";
import { audienceOf } from "./push.ts";
import { openQueue, QUEUE_LIMIT_COUNT } from "./queue.ts";
import { openSeen, type SeenStore } from "./seen.ts";
import { type Explained, forgetful, StorageWatch } from "./storage-watch.ts";
import { waitFor } from "./waiting.ts";

/** What the caller of a bridge provides. `say` gets lines for people; `explain` hears of every event and of what came of every look. */
export type BridgeDeps = {
  fetch: ClientDeps["fetch"];
  signer: Signer;
  now: () => Date;
  say: (line: string) => void;
  explain?: (what: Explained) => void | Promise<void>;
  /** How long one delivery may hold up those after it, ms; tests pass less. */
  budgetMs?: number;
};

/** A bridge at work. */
export type RunningBridge = {
  /** Leave: what is not delivered stays in the queue. */
  stop(): void;
  /** Resolves when it has left; false when a bridge of one look (`once`) could not look at something, or bring something. */
  done: Promise<boolean>;
};

/** A broker answers in milliseconds which jobs a push has made; one that does not is given this long, ms. */
const BUDGET_MS = 5_000;
/** Between two looks whether a full queue has room again, ms. */
const ROOM_MS = 5_000;

/** Starts a bridge. Its folder must be this process's alone. Rejects when the folder cannot be used. */
export async function startBridge(options: BridgeOptions, deps: BridgeDeps): Promise<RunningBridge> {
  const controller = new AbortController();
  const bridge = await Bridge.open(options, deps, controller.signal);
  return { stop: () => controller.abort(), done: bridge.run() };
}

/** The order of steps of one process: what the storage's watch finds comes into the queue, and from there to the broker. */
class Bridge {
  readonly #options: BridgeOptions;
  readonly #deps: BridgeDeps;
  readonly #signal: AbortSignal;
  readonly #queue: Awaited<ReturnType<typeof openQueue>>;
  readonly #watch: StorageWatch;
  readonly #courier: ReturnType<typeof createCourier>;
  /** Whether the queue is being emptied, so that waiting for room makes sense. */
  #isCarrying = false;
  /** The end of what may not overlap: bringing a look into the queue, and listing the queue. */
  #turn: Promise<unknown> = Promise.resolve();

  static async open(options: BridgeOptions, deps: BridgeDeps, signal: AbortSignal): Promise<Bridge> {
    // A look is never cut: it is taken while there is room, then brought into the queue as a whole.
    const queue = await openQueue(join(options.state, "queue"), Infinity);
    const seen = await openSeen(join(options.state, "seen"), deps.say);
    return new Bridge(options, deps, signal, queue, options.dryRun ? forgetful(seen) : seen);
  }

  private constructor(
    options: BridgeOptions,
    deps: BridgeDeps,
    signal: AbortSignal,
    queue: Awaited<ReturnType<typeof openQueue>>,
    seen: SeenStore,
  ) {
    const { fetch, signer, now, say, explain, budgetMs = BUDGET_MS } = deps;
    this.#options = options;
    this.#deps = deps;
    this.#signal = signal;
    this.#queue = queue;
    this.#watch = new StorageWatch(options, {
      now,
      say,
      explain,
      seen,
      telling: tellingOf(options),
      signal,
      hasRoom: () => this.#hasRoom(),
      take: (_, findings, remember) => this.#take(findings, remember),
    });
    this.#courier = createCourier({
      queue: { ...queue, list: () => this.#exclusively(() => queue.list()) },
      fetch,
      signer,
      now,
      say,
      budgetMs,
      pause: (ms) => waitFor(ms, signal),
    });
  }

  /** Runs until the signal aborts, or once. */
  async run(): Promise<boolean> {
    const { once, dryRun } = this.#options;
    await this.#watch.markAll();
    // What a crash left in the queue before it was remembered is recognised now, before anything of it is sent.
    await this.#watch.lookAtAll();
    if (once) {
      let isEmpty = dryRun || (await this.#courier.round());
      for (; isEmpty && !this.#watch.isClean && !this.#signal.aborted; isEmpty = await this.#courier.round())
        await this.#watch.lookAtAll();
      return isEmpty && !this.#watch.hasFailed;
    }
    this.#isCarrying = !dryRun;
    await Promise.all([this.#watch.follow(), dryRun ? null : this.#courier.run(this.#signal)]);
    return true;
  }

  async #hasRoom(): Promise<boolean> {
    while (!this.#options.dryRun && (await this.#queue.count()) >= QUEUE_LIMIT_COUNT && !this.#signal.aborted) {
      if (!this.#isCarrying) return false;
      await waitFor(ROOM_MS, this.#signal);
    }
    return true;
  }

  /** Every push into the queue, then what was seen: after a crash in between the same pushes are found again, and are in the queue already. */
  async #take(findings: readonly Finding[], remember: () => Promise<void>): Promise<void> {
    const { now } = this.#deps;
    const { url, namespace, hook, dryRun } = this.#options;
    await this.#exclusively(async () => {
      for (const finding of findings) {
        if (finding.push === null || dryRun) continue;
        const body = JSON.stringify({ ...finding.push, number: await this.#queue.nextNumber(now()) });
        await this.#queue.add({ url, namespace, hook }, body, now(), finding.id);
      }
      await remember();
    });
    this.#courier.wake();
  }

  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => {});
    return turn;
  }
}

function tellingOf({ url, namespace, seed, fetchFrom, follow, radHome, repositories }: BridgeOptions): Telling {
  return {
    audience: audienceOf(url, namespace),
    seeds: [...new Set([...(seed === undefined ? [] : [seed]), ...fetchFrom])].filter((one) =>
      one.startsWith("https:"),
    ),
    followed: async () => new Set([...follow, ...(await readFollowed(radHome))]),
    selection: {
      repositories: repositories.length === 0 ? null : new Set(repositories),
      people: follow.length === 0 ? null : new Set(follow),
    },
  };
}
