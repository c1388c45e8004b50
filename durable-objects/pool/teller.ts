import type { DeploymentId, JobId, Waiting } from "@plumule/protocol";
import type { Entry } from "./core/backlog.ts";
import { isNews, isOtherSort, toldOf } from "./core/news.ts";

/** Deployments are told of new reasons at most once in this time, ms, so that a burst of changes is one telling. */
const PAUSE_MS = 500;

/** Tickets that one telling looks at, and those that it may tell. */
const LOOKED_COUNT = 1_000;
const TOLD_COUNT = 100;

/** What telling needs of its pool. */
export type TellerDeps = {
  later(work: Promise<void>): void;
  entries(): Iterable<Entry>;
  /** Explains tickets as things stand at this moment. */
  look(): (entry: Entry) => Waiting;
  /** Keeps the reason across an eviction. */
  save(job: JobId, reason: string): void;
  send(deployment: DeploymentId, changes: Change[]): Promise<void>;
};

type Change = { job: JobId; waiting: Waiting };

/** Tells deployments why their tickets wait, where that has changed. A telling that fails is repeated with the next change. */
export class Teller {
  readonly #deps: TellerDeps;
  #state: "idle" | "telling" | "asked again" = "idle";

  constructor(deps: TellerDeps) {
    this.#deps = deps;
  }

  /** Something has changed. Returns at once, never throws. */
  soon(): void {
    if (this.#state !== "idle") {
      this.#state = "asked again";
      return;
    }
    if (this.#deps.entries()[Symbol.iterator]().next().done === true) return;
    this.#state = "telling";
    this.#deps.later(this.#tell());
  }

  async #tell(): Promise<void> {
    await scheduler.wait(0);
    const news = this.#news();
    await Promise.allSettled(Array.from(news, ([deployment, told]) => this.#send(deployment, told)));
    await scheduler.wait(PAUSE_MS);
    const again = this.#state === "asked again";
    this.#state = "idle";
    if (again) this.soon();
  }

  async #send(deployment: DeploymentId, told: { entry: Entry; change: Change }[]): Promise<void> {
    try {
      await this.#deps.send(
        deployment,
        told.map(({ change }) => change),
      );
    } catch {
      for (const { entry } of told) entry.told = null;
    }
  }

  #news(): Map<DeploymentId, { entry: Entry; change: Change }[]> {
    const look = this.#deps.look();
    const news = new Map<DeploymentId, { entry: Entry; change: Change }[]>();
    let [looked, told] = [0, 0];
    for (const entry of this.#deps.entries()) {
      if (++looked > LOOKED_COUNT || told === TOLD_COUNT) break;
      const { job, deployment } = entry.ticket;
      const waiting = look(entry);
      const before = entry.told;
      const fresh = isNews(before, waiting);
      if (fresh || before?.position === null) entry.told = toldOf(waiting);
      if (!fresh) continue;
      told += 1;
      if (isOtherSort(before?.reason ?? null, waiting.reason)) this.#deps.save(job, waiting.reason);
      news.set(deployment, [...(news.get(deployment) ?? []), { entry, change: { job, waiting } }]);
    }
    return news;
  }
}
