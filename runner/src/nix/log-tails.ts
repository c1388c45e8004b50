import { LIMITS } from "@plumule/protocol";
import { stripColour } from "./lines.ts";

/** Derivations whose last lines are kept: more than a large machine builds in parallel. Of more, those that were silent for longest are forgotten. */
const MAX_TAILS = 256;

/** The last lines that each builder printed, within a bound that no builder and no number of them can move. */
export class LogTails {
  readonly #lines = new Map<string, string[]>();

  /** Remembers a line, without its colours. */
  add(drv: string, line: string): void {
    const lines = this.#lines.get(drv) ?? [];
    lines.push(stripColour(line).slice(0, LIMITS.reasonLineCharacters));
    if (lines.length > LIMITS.reasonLines) lines.shift();
    this.#lines.delete(drv);
    this.#lines.set(drv, lines);
    const [oldest] = this.#lines.keys();
    if (this.#lines.size > MAX_TAILS && oldest !== undefined) this.#lines.delete(oldest);
  }

  /** The last lines of a builder, oldest first. */
  of(drv: string): readonly string[] {
    return this.#lines.get(drv) ?? [];
  }
}
