import type { Random } from "./random.ts";

/** What can go wrong. Reports count by these names. */
export const FAULTS = [
  "request lost",
  "answer lost",
  "duplicated",
  "delayed",
  "partition",
  "object evicted",
  "object hibernated",
  "alarm late",
  "alarm repeated",
  "alarm failed",
  "storage error",
  "commit error",
  "slow commit",
  "slow digest",
  "clock jump",
  "socket cut",
  "slow socket",
  "runner killed",
  "supervisor killed",
  "power lost",
  "disk full",
  "spool full",
  "proxy page",
] as const;
export type Fault = (typeof FAULTS)[number];

/**
 * Which faults a world has, and how likely each is where it can happen. About half are switched off in each world, so that rare combinations
 * have worlds of their own: with everything at once nothing gets far enough to break (swarm testing).
 */
export class FaultMix {
  readonly counts = new Map<Fault, number>();
  readonly #odds = new Map<Fault, number>();
  readonly #random: Random;
  #on = false;

  constructor(random: Random) {
    this.#random = random;
    const calm = random.chance(0.05);
    for (const fault of FAULTS) {
      const odds = random.chance(0.5) ? 0 : ODDS[fault] * 4 ** (random.next() * 2 - 1);
      this.#odds.set(fault, calm ? 0 : odds);
    }
  }

  /** Faults begin; before that a world is put together, which has tests of its own. */
  begin(): void {
    this.#on = true;
  }

  /** From now on everything works. */
  stop(): void {
    this.#on = false;
  }

  /** True when a fault happens here and now; it is counted. */
  strikes(fault: Fault): boolean {
    if (!this.#on || !this.#random.chance(this.#odds.get(fault) ?? 0)) return false;
    this.counts.set(fault, (this.counts.get(fault) ?? 0) + 1);
    return true;
  }
}

/** The middle of the odds, per place: a message, a write, a commit, an alarm, or a second for what strikes by itself. */
const ODDS: Readonly<Record<Fault, number>> = {
  "request lost": 0.02,
  "answer lost": 0.02,
  duplicated: 0.02,
  delayed: 0.03,
  partition: 0.01,
  "object evicted": 0.01,
  "object hibernated": 0.05,
  "alarm late": 0.2,
  "alarm repeated": 0.1,
  "alarm failed": 0.1,
  "storage error": 0.004,
  "commit error": 0.004,
  "slow commit": 0.03,
  "slow digest": 0.1,
  "clock jump": 0.01,
  "socket cut": 0.02,
  "slow socket": 0.02,
  "runner killed": 0.02,
  "supervisor killed": 0.01,
  "power lost": 0.004,
  "disk full": 0.006,
  "spool full": 0.003,
  "proxy page": 0.01,
};
