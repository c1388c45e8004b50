import type { Digest } from "./encode.ts";

/** Numbers in a row that grows, in a third of the memory that an array takes. */
export class Row {
  #numbers = new Int32Array(1_024);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  at(index: number): number {
    return this.#numbers[index] ?? 0;
  }

  push(number: number): void {
    if (this.#length === this.#numbers.length) {
      const wider = new Int32Array(2 * this.#length);
      wider.set(this.#numbers);
      this.#numbers = wider;
    }
    this.#numbers[this.#length++] = number;
  }
}

/**
 * The states that were met, by their digests, in the order in which they were met: 64 bits each, how the first way led to them (`parent`, and
 * which of its steps), and the states that follow.
 */
export class States {
  readonly #high = new Row();
  readonly #low = new Row();
  readonly #parents = new Row();
  readonly #ordinals = new Row();
  readonly #targets = new Row();
  /** Where the targets of each state begin; states are expanded in the order in which they were met. */
  readonly #starts = new Row();
  #slots = new Int32Array(4_096).fill(-1);

  get count(): number {
    return this.#high.length;
  }

  get edgeCount(): number {
    return this.#targets.length;
  }

  /** The number of a state, and whether it was met for the first time. */
  meet({ high, low }: Digest, parent: number, ordinal: number): { index: number; isNew: boolean } {
    const [one, two] = [high | 0, low | 0];
    const slot = this.#slotOf(one, two);
    const known = this.#slots[slot] ?? -1;
    if (known >= 0) return { index: known, isNew: false };
    const index = this.count;
    this.#slots[slot] = index;
    this.#high.push(one);
    this.#low.push(two);
    this.#parents.push(parent);
    this.#ordinals.push(ordinal);
    if (2 * this.count > this.#slots.length) this.#rehash();
    return { index, isNew: true };
  }

  /** The next state, in the order in which they were met, is expanded. */
  expand(): void {
    this.#starts.push(this.#targets.length);
  }

  /** A step of the state that is being expanded leads here. */
  leadsTo(target: number): void {
    this.#targets.push(target);
  }

  /** Which steps lead to a state, from the beginning. */
  ordinalsTo(index: number): number[] {
    const ordinals: number[] = [];
    for (let at = index; at > 0; at = this.#parents.at(at)) ordinals.unshift(this.#ordinals.at(at));
    return ordinals;
  }

  /** The first state from which no way leads to one that `isQuiet`, or null. Every state has to have been expanded. */
  firstStuck(isQuiet: (index: number) => boolean): number | null {
    const free = new Uint8Array(this.count);
    for (let index = 0; index < this.count; index += 1) free[index] = Number(isQuiet(index));
    // Most steps lead to states that were met later, so that one look from the end frees nearly all.
    for (let changed = true; changed;) {
      changed = false;
      for (let index = this.count - 1; index >= 0; index -= 1) {
        if (free[index] === 1 || !this.#leadsToFree(index, free)) continue;
        free[index] = 1;
        changed = true;
      }
    }
    const stuck = free.indexOf(0);
    return stuck < 0 ? null : stuck;
  }

  #leadsToFree(index: number, free: Uint8Array): boolean {
    const end = index + 1 < this.#starts.length ? this.#starts.at(index + 1) : this.#targets.length;
    for (let edge = this.#starts.at(index); edge < end; edge += 1) if (free[this.#targets.at(edge)] === 1) return true;
    return false;
  }

  #slotOf(high: number, low: number): number {
    const mask = this.#slots.length - 1;
    let slot = (low ^ (high >>> 7)) & mask;
    for (;;) {
      const index = this.#slots[slot] ?? -1;
      if (index < 0 || (this.#high.at(index) === high && this.#low.at(index) === low)) return slot;
      slot = (slot + 1) & mask;
    }
  }

  #rehash(): void {
    this.#slots = new Int32Array(2 * this.#slots.length).fill(-1);
    for (let index = 0; index < this.count; index += 1)
      this.#slots[this.#slotOf(this.#high.at(index), this.#low.at(index))] = index;
  }
}
