import { LIMITS } from "@plumule/protocol";
import type { Millis, RunnerId } from "@plumule/protocol";
import type { Ability, Needs } from "../calls.ts";
import { admits, fits, signatureOf } from "./fit.ts";

/** A runner that was not heard of for this long is offline, ms: it has missed a whole poll and the way back. */
export const OFFLINE_MS = 2 * LIMITS.pollHoldMs;

/**
 * A parked poll. `free`: it may be given a ticket; `aside`: a reservation or a claim has it; `gone`: it was answered.
 * `over`: its hold has ended while it was set aside, so it is answered as soon as that ends.
 */
export type Poll = { runner: Runner; requestKey: string; state: "free" | "aside" | "gone"; over: boolean };

/**
 * A runner as the pool knows it. `busy` counts the runs that it reported with its last poll and the jobs that it was given since;
 * `asideCount` counts its polls that are about to get one; `signature` is that of its offer, taken once for each poll.
 */
export type Runner = {
  id: RunnerId;
  offer: Ability;
  signature: string;
  busy: number;
  seenAt: Millis;
  online: boolean;
  drained: boolean;
  asideCount: number;
  polls: Map<string, Poll>;
};

/** Runners that matching cannot tell apart. `ready` are those that can take a job now, the longest waiting first. */
type Kind = { offer: Ability; runners: Set<Runner>; ready: Set<Runner> };

const isReady = (runner: Runner): boolean =>
  !runner.drained &&
  runner.busy + runner.asideCount < runner.offer.capacity &&
  [...runner.polls.values()].some((poll) => poll.state === "free");

/** The runners of a pool and their parked polls, in memory. */
export class Fleet {
  /** By time seen, the longest silent first. */
  readonly #runners = new Map<RunnerId, Runner>();
  readonly #kinds = new Map<string, Kind>();
  #parkedCount = 0;

  /** Polls that are parked now. */
  get parkedCount(): number {
    return this.#parkedCount;
  }

  /** A runner by its id. */
  get(id: RunnerId): Runner | undefined {
    return this.#runners.get(id);
  }

  /** Every runner that is known, online or not. */
  runners(): Iterable<Runner> {
    return this.#runners.values();
  }

  /** One offer per kind of runner of which at least one is online and takes work. */
  offers(): Ability[] {
    const taking = (kind: Kind): boolean => [...kind.runners].some((runner) => runner.online && !runner.drained);
    return [...this.#kinds.values()].filter(taking).map((kind) => kind.offer);
  }

  /** Notes what a runner says of itself. `changed`: whether that may change why a ticket waits. */
  see(id: RunnerId, offer: Ability, busy: number, drained: boolean, now: Millis): { runner: Runner; changed: boolean } {
    const known = this.#runners.get(id);
    const signature = signatureOf(offer);
    const changed = known?.signature !== signature || !known.online;
    const heard = { offer, signature, busy, seenAt: now, online: true };
    const runner = known ?? { id, ...heard, drained, asideCount: 0, polls: new Map() };
    if (known !== undefined) this.#unplace(known);
    Object.assign(runner, heard);
    this.#runners.delete(id);
    this.#runners.set(id, runner);
    this.#place(runner);
    return { runner, changed };
  }

  /**
   * Parks a poll. A second one with the same key is the same poll: it keeps what is set aside for it. A runner holds no more polls than its
   * capacity: the oldest are those of a process that is gone, and a job given to them would be lost until its acknowledge deadline;
   * they are `ended`, for the caller to answer.
   */
  park(runner: Runner, requestKey: string): { poll: Poll; ended: Poll[] } {
    const known = runner.polls.get(requestKey);
    if (known !== undefined) {
      known.over = false;
      return { poll: known, ended: [] };
    }
    const poll: Poll = { runner, requestKey, state: "free", over: false };
    runner.polls.set(requestKey, poll);
    this.#parkedCount += 1;
    const free = [...runner.polls.values()].filter((other) => other.state === "free");
    const ended = free.slice(0, Math.max(0, free.length - runner.offer.capacity));
    for (const other of ended) this.leave(other);
    this.#refresh(runner);
    return { poll, ended };
  }

  /** A poll was answered: it is no longer here. */
  leave(poll: Poll): void {
    if (poll.state === "gone") return;
    if (poll.state === "aside") poll.runner.asideCount -= 1;
    poll.state = "gone";
    poll.runner.polls.delete(poll.requestKey);
    this.#parkedCount -= 1;
    this.#refresh(poll.runner);
  }

  /** Sets a free poll aside, for a reservation or a claim. Throws for any other: two jobs would be given to one runner's slot. */
  setAside(poll: Poll): void {
    if (poll.state !== "free") throw new Error(`a poll of ${poll.runner.id} is set aside that is ${poll.state}`);
    poll.state = "aside";
    poll.runner.asideCount += 1;
    this.#refresh(poll.runner);
  }

  /** Ends what a poll was set aside for. */
  free(poll: Poll): void {
    if (poll.state !== "aside") return;
    poll.state = "free";
    poll.runner.asideCount -= 1;
    this.#refresh(poll.runner);
  }

  /** Notes that a runner was given a job; its next poll says how busy it is. */
  assigned(runner: Runner): void {
    runner.busy += 1;
    this.#refresh(runner);
  }

  /** Gives a runner no new work, or work again. */
  drain(runner: Runner, drained: boolean): void {
    runner.drained = drained;
    this.#refresh(runner);
  }

  /** Forgets a runner. Its polls, now gone, are for the caller to answer. */
  forget(runner: Runner): Poll[] {
    const polls = [...runner.polls.values()];
    for (const poll of polls) this.leave(poll);
    this.#unplace(runner);
    this.#runners.delete(runner.id);
    return polls;
  }

  /** Marks the runners offline that were silent for too long; true when there were any. */
  expire(now: Millis): boolean {
    let any = false;
    for (const runner of this.#runners.values()) {
      if (now - runner.seenAt < OFFLINE_MS) break;
      if (!runner.online || runner.polls.size > 0) continue;
      runner.online = false;
      any = true;
    }
    return any;
  }

  /** When the next runner goes offline unless it polls; null when none is online. */
  nextExpiryAt(): Millis | null {
    for (const runner of this.#runners.values()) if (runner.online) return runner.seenAt + OFFLINE_MS;
    return null;
  }

  /**
   * A free poll for a ticket: of the plainest kind of runner that fits, so that rarer machines stay free for work that needs them, the
   * runner that has waited longest.
   */
  readyPoll(needs: Needs, avoid: readonly RunnerId[]): Poll | null {
    let best: { plainness: number; runner: Runner } | null = null;
    for (const { offer, ready } of this.#kinds.values()) {
      const plainness = offer.systems.length + offer.features.length + offer.labels.length;
      if (ready.size === 0 || (best !== null && best.plainness <= plainness) || !fits(needs, offer)) continue;
      const runner = [...ready].find((one) => this.mayTake(one, needs, avoid));
      if (runner !== undefined) best = { plainness, runner };
    }
    return [...(best?.runner.polls.values() ?? [])].find((poll) => poll.state === "free") ?? null;
  }

  /** Whether a poll may be given a job now. */
  canTake(poll: Poll): boolean {
    return poll.state === "free" && isReady(poll.runner);
  }

  /**
   * False for a runner that the needs do not name, and for one that the ticket avoids while another one that fits is online. The caller knows
   * that its offer fits.
   */
  mayTake(runner: Runner, needs: Needs, avoid: readonly RunnerId[]): boolean {
    if (!admits(needs, runner.id)) return false;
    if (!avoid.includes(runner.id)) return true;
    const another = (other: Runner): boolean =>
      other.online && !other.drained && !avoid.includes(other.id) && admits(needs, other.id);
    return ![...this.#kinds.values()].some((kind) => fits(needs, kind.offer) && [...kind.runners].some(another));
  }

  #place(runner: Runner): void {
    const kind = this.#kinds.get(runner.signature) ?? { offer: runner.offer, runners: new Set(), ready: new Set() };
    this.#kinds.set(runner.signature, kind);
    kind.runners.add(runner);
    if (isReady(runner)) kind.ready.add(runner);
  }

  #unplace(runner: Runner): void {
    const kind = this.#kinds.get(runner.signature);
    kind?.runners.delete(runner);
    kind?.ready.delete(runner);
    if (kind?.runners.size === 0) this.#kinds.delete(runner.signature);
  }

  #refresh(runner: Runner): void {
    const kind = this.#kinds.get(runner.signature);
    if (kind === undefined || !kind.runners.has(runner)) return;
    if (isReady(runner)) kind.ready.add(runner);
    else kind.ready.delete(runner);
  }
}
