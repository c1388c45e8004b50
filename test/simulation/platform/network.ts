import type { Owner } from "./clock.ts";
import type { World } from "./world.ts";

/** Time on the way, ms: within the platform, and from outside. */
const NEAR_MS = 2;
const FAR_MS = 40;
const DELAY_MS = 8_000;
/** How long who gets no answer hears nothing, ms, when it is not told at once. */
const SILENCE_MS = 60_000;

/** One exchange of a question and its answer. Each end is called at most once on the side that asks. */
export type Exchange<Answer> = {
  /** Names of both ends: partitions go by them. */
  from: string;
  to: string;
  distance: "near" | "far";
  /** Asks the other side; it calls one of both back. It may be called twice, when a message is duplicated. */
  ask: (answer: (answer: Answer) => void, fail: (why: string) => void) => void;
  answered: (answer: Answer) => void;
  failed: (error: Error) => void;
};

/** What carries messages. It loses, doubles, delays and reorders them, and is cut between any two for a while. */
export class Network {
  readonly #world: World;
  readonly #cuts = new Map<string, number>();

  constructor(world: World) {
    this.#world = world;
  }

  /** Time that a message takes. Two messages may overtake each other. */
  delayMs(distance: "near" | "far"): number {
    const { timing, faults } = this.#world;
    const usual = timing.next() * (distance === "near" ? NEAR_MS : FAR_MS);
    return faults.strikes("delayed") ? usual + timing.next() * DELAY_MS : usual;
  }

  /** Cuts two ends off from each other for a while. */
  cut(from: string, to: string, ms: number): void {
    this.#world.note(`cut ${from} | ${to} for ${Math.round(ms)} ms`);
    this.#cuts.set(lineOf(from, to), this.#world.clock.now + ms);
  }

  /** Whether a message gets nowhere. */
  isCut(from: string, to: string): boolean {
    const until = this.#cuts.get(lineOf(from, to));
    return until !== undefined && until > this.#world.clock.now;
  }

  /** Joins everything again. */
  mend(): void {
    this.#cuts.clear();
  }

  /** Carries one exchange. Nothing is told to an owner that is gone. */
  exchange<Answer>(asker: Owner, exchange: Exchange<Answer>): void {
    const { clock, faults, timing } = this.#world;
    const { from, to, distance } = exchange;
    let isOver = false;
    const end = (tell: () => void): void => {
      if (isOver || !asker.alive) return;
      isOver = true;
      tell();
    };
    const lost = (why: string): void => {
      // Most failures are told by a reset connection, some by nothing at all.
      const afterMs = timing.chance(0.8) ? timing.next() * 200 : SILENCE_MS;
      clock.after(afterMs, () => end(() => exchange.failed(new Error(`Network connection lost: ${why}`))));
    };
    const goBack = (deliver: () => void): void => {
      if (this.isCut(from, to) || faults.strikes("answer lost")) return lost("no answer");
      clock.after(this.delayMs(distance), deliver);
    };
    const go = (): void => {
      if (this.isCut(from, to) || faults.strikes("request lost")) return lost("not sent");
      clock.after(this.delayMs(distance), () =>
        exchange.ask(
          (answer) => goBack(() => end(() => exchange.answered(answer))),
          (why) => goBack(() => end(() => exchange.failed(new Error(why)))),
        ),
      );
    };
    go();
    if (faults.strikes("duplicated")) go();
  }
}

function lineOf(a: string, b: string): string {
  return a < b ? `${a} | ${b}` : `${b} | ${a}`;
}
