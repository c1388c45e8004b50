import { Clock, type Owner } from "./clock.ts";
import { FaultMix } from "./faults.ts";
import { createRandom, foldHash, type Random } from "./random.ts";

/** Something that must never be was seen. */
export class Violation extends Error {
  constructor(invariant: string, detail: string) {
    super(`${invariant}: ${detail}`);
    this.name = "Violation";
  }
}

/** The execution of a run on a machine: what a job did, whoever knows of it. Times by the clock of the world. */
export type Execution = {
  run: string;
  deployment: string;
  owner: Owner;
  /** When it was told to stop, and when nothing of it was left. */
  stoppedAt: number | null;
  endedAt: number | null;
  output: Uint8Array[];
  /** Its machine lost its power, and with it what was not on the disk yet. */
  lostPower: boolean;
  /** Since when the broker holds no lease for it any more; null while it does. */
  unleasedAt: number | null;
};

/** Bugs of the platform that a test may seed, to see that the simulation finds what they break. */
export type PlatformBug = "answers before the commit" | null;

/** One simulated world: its time, its chances, its faults, and what was seen. */
export class World {
  readonly clock = new Clock();
  readonly faults: FaultMix;
  /** What code of the product draws. */
  readonly entropy: Random;
  /** How long messages and commits take. */
  readonly timing: Random;
  /** What people, jobs and senders do. */
  readonly life: Random;
  /** Which jobs name which locks: the other worlds unfold as if there were none. */
  readonly locks: Random;
  readonly bug: PlatformBug;
  readonly seed: number;
  /** The first violation; the world ends with it. */
  violation: Error | null = null;
  /** What machines really did, by run. */
  readonly executions = new Map<string, Execution>();
  /** Set once a clock of the broker has jumped: from then on a lease may end before its runner can know. */
  brokerClockJumped = false;
  hash = 0x811c9dc5;
  eventCount = 0;
  readonly #say: ((line: string) => void) | null;

  constructor(seed: number, options: { bug?: PlatformBug; say?: ((line: string) => void) | null } = {}) {
    this.seed = seed;
    this.bug = options.bug ?? null;
    this.#say = options.say ?? null;
    this.faults = new FaultMix(createRandom(seed, "faults"));
    this.entropy = createRandom(seed, "entropy");
    this.timing = createRandom(seed, "timing");
    this.life = createRandom(seed, "life");
    this.locks = createRandom(seed, "locks");
  }

  /** Notes what happened. All notes together are the history of the world: equal for equal seeds (I21). */
  note(what: string): void {
    const line = `${this.clock.elapsedMs.toFixed(3)} ${what}`;
    this.hash = foldHash(this.hash, line);
    this.#say?.(line);
  }

  /** A property is broken. */
  violate(invariant: string, detail: string): void {
    this.fault(new Violation(invariant, detail));
  }

  /** An error that nobody expected. */
  fault(error: unknown): void {
    this.violation ??= error instanceof Error ? error : new Error(String(error));
    this.note(`VIOLATION ${this.violation.message}`);
  }
}
