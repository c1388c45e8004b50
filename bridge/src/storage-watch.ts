import { join } from "node:path";
import { type News, readNews } from "./core/news.ts";
import { type Finding, look, type Look, type Telling } from "./look.ts";
import { followNode } from "./node-socket.ts";
import { watchOwnPushes } from "./own-pushes.ts";
import { fetchSeed } from "./seed.ts";
import type { SeenStore } from "./seen.ts";
import { listRepositories, openRepository } from "./storage.ts";
import { waitFor } from "./waiting.ts";

/** An event of the node, or what a look at a repository (`z…`) found. */
export type Explained = { kind: "event"; news: News } | { kind: "look"; id: string; look: Look };

/** Which storage is watched, and how: beside a node, or mirrors of a seed in `state`, asked every `pollMs`. */
export type WatchOptions = {
  radHome: string;
  socket?: string | undefined;
  seed?: string | undefined;
  pollMs: number;
  state: string;
  /** Those that are looked at, `z…`; none: all. */
  repositories: readonly string[];
};

export type WatchDeps = {
  now: () => Date;
  say: (line: string) => void;
  explain?: ((what: Explained) => void | Promise<void>) | undefined;
  seen: SeenStore;
  telling: Telling;
  signal: AbortSignal;
  /** Resolves with false when nothing more is to be looked at now, and waits while there is to be room soon. */
  hasRoom: () => Promise<boolean>;
  /** Takes what a look found; what was seen is then remembered with `remember`, so that a crash in between finds it again. */
  take: (id: string, findings: readonly Finding[], remember: () => Promise<void>) => Promise<void>;
};

/** All repositories are looked at so often, ms, in case that an event was lost which nobody knows of; with many of them less often, ms for each. */
const RECONCILE_MS = 60_000;
const RECONCILE_EACH_MS = 200;
/** A subscription has no acknowledgement: what moves before the node has it is found by another look, so much later, ms. */
const SETTLE_MS = 2_000;
/** A repository that could not be looked at is tried again, ms. */
const AGAIN_MS = 5_000;

/** Finds what moves in a storage: an event of the node says where to look, and what is dirty is looked at, one repository after the other. */
export class StorageWatch {
  readonly #options: WatchOptions;
  readonly #deps: WatchDeps;
  /** Repositories that are to be looked at, in the order in which it was asked for. */
  readonly #dirty = new Set<string>();
  #hasFailed = false;
  #alarm = Promise.withResolvers<void>();

  constructor(options: WatchOptions, deps: WatchDeps) {
    this.#options = options;
    this.#deps = deps;
    deps.signal.addEventListener("abort", () => this.#alarm.resolve(), { once: true });
  }

  /** Whether a repository could not be looked at. */
  get hasFailed(): boolean {
    return this.#hasFailed;
  }

  /** Whether nothing is left to be looked at. */
  get isClean(): boolean {
    return this.#dirty.size === 0;
  }

  /** Looks at whatever there is news of, until the signal aborts. */
  async follow(): Promise<void> {
    const { signal } = this.#deps;
    const { seed, radHome } = this.#options;
    const onMove = (id: string): void => this.#mark(id);
    const watching = seed === undefined ? watchOwnPushes(radHome, { onMove, signal }) : Promise.resolve();
    const following = seed === undefined ? this.#followNode() : Promise.resolve();
    const repeating = this.#repeat();
    while (!signal.aborted) {
      this.#alarm = Promise.withResolvers();
      await this.lookAtAll();
      if (this.isClean && !signal.aborted) await this.#alarm.promise;
    }
    await Promise.all([watching, following, repeating]);
  }

  #mark(id: string): void {
    const { repositories } = this.#options;
    if (repositories.length > 0 && !repositories.includes(id)) return;
    this.#dirty.add(id);
    this.#alarm.resolve();
  }

  /** Marks every repository there is; answers how many. Never rejects. */
  async markAll(): Promise<number> {
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
    const { say, signal } = this.#deps;
    const { radHome, socket } = this.#options;
    return followNode({
      path: socket ?? join(radHome, "node", "control.sock"),
      signal,
      say,
      onOpen: () => {
        void this.markAll();
        void waitFor(SETTLE_MS, signal).then(() => this.markAll());
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
    const { signal } = this.#deps;
    for (let count = 0; !signal.aborted; count = await this.markAll()) {
      const everyMs = seed === undefined ? Math.max(RECONCILE_MS, RECONCILE_EACH_MS * count) : pollMs;
      await waitFor(everyMs, signal);
    }
  }

  /** Looks at what is dirty, as far as there is room: the storage keeps the rest. */
  async lookAtAll(): Promise<void> {
    const { say, signal, hasRoom } = this.#deps;
    for (const id of this.#dirty) {
      if (signal.aborted || !(await hasRoom())) return;
      // Before the look: an event that comes meanwhile asks for another one.
      this.#dirty.delete(id);
      try {
        await this.#lookAt(id);
      } catch (error) {
        this.#hasFailed = true;
        say(`rad:${id} cannot be looked at: ${error instanceof Error ? error.message.trim() : String(error)}`);
        void waitFor(AGAIN_MS, signal).then(() => this.#mark(id));
      }
    }
  }

  async #lookAt(id: string): Promise<void> {
    const { seed } = this.#options;
    const { explain, now, say, seen, signal, take, telling } = this.#deps;
    if (seed !== undefined) await fetchSeed(this.#storage(), id, seed, signal);
    const repository = openRepository(this.#storage(), id);
    try {
      const found = await look(repository, await seen.read(id), telling, now().getTime());
      await explain?.({ kind: "look", id, look: found });
      for (const fault of found.faults) say(`rad:${id}: ${fault}`);
      const next = found.seen;
      if (next === null) return;
      if (found.why !== null) say(`rad:${id}: ${found.why}`);
      await take(id, found.findings, () => seen.write(id, next));
    } finally {
      repository.objects.close();
    }
  }
}

/** What a dry run remembers: nothing for the next one. */
export function forgetful(store: SeenStore): SeenStore {
  const known = new Map<string, Awaited<ReturnType<SeenStore["read"]>>>();
  return {
    read: async (id) => known.get(id) ?? store.read(id),
    write: async (id, seen) => void known.set(id, seen),
  };
}
