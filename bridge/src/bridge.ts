import { join } from "node:path";
import { type ClientDeps, type Signer } from "@plumule/protocol";
import { type News, readNews } from "./core/news.ts";
import { createCourier } from "./courier.ts";
import { readFollowed } from "./followed.ts";
import { look, type Look, type Telling } from "./look.ts";
import { followNode } from "./node-socket.ts";
import type { BridgeOptions } from "./options.ts";
import { watchOwnPushes } from "./own-pushes.ts";
import { audienceOf } from "./push.ts";
import { openQueue, QUEUE_LIMIT_COUNT } from "./queue.ts";
import { openSeen, type SeenStore } from "./seen.ts";
import { fetchSeed } from "./seed.ts";
import { listRepositories, openRepository } from "./storage.ts";
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

/** An event of the node, or what a look at a repository (`z…`) found. */
export type Explained = { kind: "event"; news: News } | { kind: "look"; id: string; look: Look };

/** A bridge at work. */
export type RunningBridge = {
  /** Leave: what is not delivered stays in the queue. */
  stop(): void;
  /** Resolves when it has left; false when a bridge of one look (`once`) could not look at something, or bring something. */
  done: Promise<boolean>;
};

/** All repositories are looked at so often, ms, in case that an event was lost which nobody knows of; with many of them less often, ms for each. */
const RECONCILE_MS = 60_000;
const RECONCILE_EACH_MS = 200;
/** A subscription has no acknowledgement: what moves before the node has it is found by another look, so much later, ms. */
const SETTLE_MS = 2_000;
/** A broker answers in milliseconds which jobs a push has made; one that does not is given this long, ms. */
const BUDGET_MS = 5_000;
/** A repository that could not be looked at is tried again, ms. */
const AGAIN_MS = 5_000;

/** Starts a bridge. Its folder must be this process's alone. Rejects when the folder cannot be used. */
export async function startBridge(options: BridgeOptions, deps: BridgeDeps): Promise<RunningBridge> {
  const controller = new AbortController();
  const bridge = await Bridge.open(options, deps, controller.signal);
  return { stop: () => controller.abort(), done: bridge.run() };
}

/** The order of steps of one process: what is dirty is looked at, one repository after the other. */
class Bridge {
  readonly #options: BridgeOptions;
  readonly #deps: BridgeDeps;
  readonly #signal: AbortSignal;
  readonly #queue: Awaited<ReturnType<typeof openQueue>>;
  readonly #seen: SeenStore;
  readonly #courier: ReturnType<typeof createCourier>;
  readonly #telling: Telling;
  /** Repositories that are to be looked at, in the order in which it was asked for. */
  readonly #dirty = new Set<string>();
  /** Whether the queue is being emptied, so that waiting for room makes sense. */
  #isCarrying = false;
  /** Whether a repository could not be looked at. */
  #hasFailed = false;
  #alarm = Promise.withResolvers<void>();
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
    const { repositories, follow, fetchFrom, seed } = options;
    this.#options = options;
    this.#deps = deps;
    this.#signal = signal;
    this.#queue = queue;
    this.#seen = seen;
    this.#telling = {
      audience: audienceOf(options.url, options.namespace),
      seeds: [...new Set([...(seed === undefined ? [] : [seed]), ...fetchFrom])].filter((one) =>
        one.startsWith("https:"),
      ),
      followed: async () => new Set([...follow, ...(await readFollowed(options.radHome))]),
      selection: {
        repositories: repositories.length === 0 ? null : new Set(repositories),
        people: follow.length === 0 ? null : new Set(follow),
      },
    };
    const { fetch, signer, now, say, budgetMs = BUDGET_MS } = deps;
    signal.addEventListener("abort", () => this.#alarm.resolve(), { once: true });
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
    const { once, dryRun, seed, radHome } = this.#options;
    await this.#markAll();
    // What a crash left in the queue before it was remembered is recognised now, before anything of it is sent.
    await this.#lookAtAll();
    if (once) {
      let isEmpty = dryRun || (await this.#courier.round());
      for (; isEmpty && this.#dirty.size > 0 && !this.#signal.aborted; isEmpty = await this.#courier.round())
        await this.#lookAtAll();
      return isEmpty && !this.#hasFailed;
    }
    const onMove = (id: string): void => this.#mark(id);
    const watching = seed === undefined ? watchOwnPushes(radHome, { onMove, signal: this.#signal }) : Promise.resolve();
    const following = seed === undefined ? this.#followNode() : Promise.resolve();
    const carrying = dryRun ? Promise.resolve() : this.#courier.run(this.#signal);
    this.#isCarrying = !dryRun;
    const repeating = this.#repeat();
    while (!this.#signal.aborted) {
      this.#alarm = Promise.withResolvers();
      await this.#lookAtAll();
      if (this.#dirty.size === 0 && !this.#signal.aborted) await this.#alarm.promise;
    }
    await Promise.all([watching, following, carrying, repeating]);
    return true;
  }

  #mark(id: string): void {
    const { repositories } = this.#telling.selection;
    if (repositories !== null && !repositories.has(id)) return;
    this.#dirty.add(id);
    this.#alarm.resolve();
  }

  /** Marks every repository there is; answers how many. Never rejects. */
  async #markAll(): Promise<number> {
    const { seed, repositories } = this.#options;
    const listing = seed === undefined ? listRepositories(this.#storage()) : Promise.resolve(repositories);
    const ids = await listing.catch((error: unknown) => {
      this.#deps.say(`the storage cannot be read: ${String(error)}`);
      return [];
    });
    for (const id of ids) this.#mark(id);
    return ids.length;
  }

  #storage(): string {
    const { seed, state, radHome } = this.#options;
    return seed === undefined ? join(radHome, "storage") : join(state, "mirrors");
  }

  #followNode(): Promise<void> {
    const { say } = this.#deps;
    const { radHome, socket } = this.#options;
    return followNode({
      path: socket ?? join(radHome, "node", "control.sock"),
      signal: this.#signal,
      say,
      onOpen: () => {
        void this.#markAll();
        void waitFor(SETTLE_MS, this.#signal).then(() => this.#markAll());
      },
      onLine: (line) => {
        const news = readNews(line);
        void this.#deps.explain?.({ kind: "event", news });
        if (news.event === "error") say(`the node says: ${news.look === null ? news.why : ""}`);
        if (news.look !== null) this.#mark(news.look);
      },
    });
  }

  /** Looks at everything again and again: polling where there is a seed, else in case that an event was lost. */
  async #repeat(): Promise<void> {
    const { seed, pollMs } = this.#options;
    for (let count = 0; !this.#signal.aborted; count = await this.#markAll()) {
      const everyMs = seed === undefined ? Math.max(RECONCILE_MS, RECONCILE_EACH_MS * count) : pollMs;
      await waitFor(everyMs, this.#signal);
    }
  }

  /** Looks at what is dirty, as far as the queue has room: the storage keeps the rest. */
  async #lookAtAll(): Promise<void> {
    for (const id of this.#dirty) {
      if (this.#signal.aborted) return;
      while (!this.#options.dryRun && (await this.#queue.count()) >= QUEUE_LIMIT_COUNT && !this.#signal.aborted) {
        if (!this.#isCarrying) return;
        await waitFor(AGAIN_MS, this.#signal);
      }
      // Before the look: an event that comes meanwhile asks for another one.
      this.#dirty.delete(id);
      try {
        await this.#lookAt(id);
      } catch (error) {
        this.#hasFailed = true;
        this.#deps.say(
          `rad:${id} cannot be looked at: ${error instanceof Error ? error.message.trim() : String(error)}`,
        );
        void waitFor(AGAIN_MS, this.#signal).then(() => this.#mark(id));
      }
    }
  }

  async #lookAt(id: string): Promise<void> {
    const { seed } = this.#options;
    if (seed !== undefined) await fetchSeed(this.#storage(), id, seed, this.#signal);
    const repository = openRepository(this.#storage(), id);
    try {
      const found = await look(repository, await this.#seen.read(id), this.#telling, this.#deps.now().getTime());
      await this.#deps.explain?.({ kind: "look", id, look: found });
      await this.#exclusively(() => this.#record(id, found));
    } finally {
      repository.objects.close();
    }
    this.#courier.wake();
  }

  /** Every push into the queue, then what was seen: after a crash in between the same pushes are found again, and are in the queue already. */
  async #record(id: string, { findings, seen, why, faults }: Look): Promise<void> {
    const { say, now } = this.#deps;
    const { url, namespace, hook, dryRun } = this.#options;
    for (const fault of faults) say(`rad:${id}: ${fault}`);
    if (seen === null) return;
    if (why !== null) say(`rad:${id}: ${why}`);
    for (const finding of findings) {
      if (finding.push === null || dryRun) continue;
      const body = JSON.stringify({ ...finding.push, number: await this.#queue.nextNumber(now()) });
      await this.#queue.add({ url, namespace, hook }, body, now(), finding.id);
    }
    await this.#seen.write(id, seen);
  }

  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => {});
    return turn;
  }
}

/** What a dry run remembers: nothing for the next one. */
function forgetful(store: SeenStore): SeenStore {
  const known = new Map<string, Awaited<ReturnType<SeenStore["read"]>>>();
  return {
    read: async (id) => known.get(id) ?? store.read(id),
    write: async (id, seen) => void known.set(id, seen),
  };
}
