import { LIMITS } from "@plumule/protocol";
import type { Assignment, Millis, RunnerId } from "@plumule/protocol";

/** After this a runner has either acknowledged the assignment or lost it, ms. */
const KEPT_MS = 2 * LIMITS.acknowledgeMs;

/** Assignments kept; each may hold a whole submit, so this bounds them to 50 MiB. An answer that is lost after it was pushed out is healed by the acknowledge deadline. */
const KEPT_COUNT = 200;

/**
 * The assignments that were handed out lately, by runner and request key, in memory: a runner that repeats its poll, since the answer was lost,
 * gets the same one at once.
 */
export class Deliveries {
  readonly #kept = new Map<string, { assignment: Assignment; at: Millis }>();

  /** The assignment that this poll was answered with; null when it was not, or too long ago. */
  get(runner: RunnerId, requestKey: string, now: Millis): Assignment | null {
    this.#prune(now);
    return this.#kept.get(`${runner} ${requestKey}`)?.assignment ?? null;
  }

  /** Keeps an assignment. */
  keep(runner: RunnerId, requestKey: string, assignment: Assignment, now: Millis): void {
    this.#kept.set(`${runner} ${requestKey}`, { assignment, at: now });
    this.#prune(now);
  }

  /** Drops what a runner was given. */
  forget(runner: RunnerId): void {
    for (const key of this.#kept.keys()) if (key.startsWith(`${runner} `)) this.#kept.delete(key);
  }

  #prune(now: Millis): void {
    for (const [key, { at }] of this.#kept) {
      if (this.#kept.size <= KEPT_COUNT && now - at < KEPT_MS) return;
      this.#kept.delete(key);
    }
  }
}
