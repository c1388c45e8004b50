import { ESCAPE } from "./redact-forms.ts";
import { BLANK, Sieve } from "./redact-sieve.ts";

/** A spelling of a secret. `secret` is its number, from 1. */
export type Needle = { secret: number; bytes: Uint8Array };

/** A needle has to have begun with so many bytes before `skip` stops for it: with fewer, much of any text would be looked at twice. */
const SUSPECT_BYTES = 4;
/** What is looked through for a colour sequence at a time, bytes. */
const WINDOW_BYTES = 4 * 1024;

/**
 * Aho–Corasick over bytes: a trie of all needles in which every state knows its longest proper suffix that is a state too. Most states of
 * long needles have one child, so children are chains and not tables: a private key in all its forms costs a megabyte, not a hundred.
 */
export class Automaton {
  readonly #root = new Int32Array(256);
  /** The states of two bytes, by both: here many needles part, and a chain of them would be long. */
  readonly #pairs = new Int32Array(256 * 256);
  readonly #firstChild: Int32Array;
  readonly #nextSibling: Int32Array;
  readonly #byte: Uint8Array;
  readonly #suffix: Int32Array;
  readonly #depth: Int32Array;
  /** Length of the longest needle that ends in a state, and its secret. */
  readonly #matched: Int32Array;
  readonly #secret: Uint16Array;
  /** Length of the shortest needle that a state is the beginning of. */
  readonly #shortest: Int32Array;
  readonly #sieve: Sieve;
  #used = 1;

  constructor(needles: readonly Needle[]) {
    const count = 1 + needles.reduce((sum, { bytes }) => sum + bytes.length, 0);
    this.#byte = new Uint8Array(count);
    this.#secret = new Uint16Array(count);
    [this.#firstChild, this.#nextSibling, this.#suffix] = [
      new Int32Array(count),
      new Int32Array(count),
      new Int32Array(count),
    ];
    [this.#depth, this.#matched, this.#shortest] = [
      new Int32Array(count),
      new Int32Array(count),
      new Int32Array(count),
    ];
    for (const needle of needles) this.#add(needle);
    this.#link();
    this.#sieve = new Sieve(needles.map(({ bytes }) => bytes));
  }

  /** The state after a byte; 0 is the state that knows nothing. */
  next(state: number, byte: number): number {
    for (let from = state; from !== 0; from = this.#suffix[from] ?? 0) {
      const child = this.#child(from, byte);
      if (child !== 0) return child;
    }
    return this.#root[byte] ?? 0;
  }

  /**
   * Where, from a place at which the state is 0 and no colour sequence is open, bytes have to be read one by one: at the beginning of what may
   * become a needle, or of a colour sequence; the end of the bytes when there is nothing of the kind. Until there nothing is masked. This is what
   * nearly all output takes: most of it by the sieve, and where that cannot tell, byte by byte, ten times as fast as reading.
   */
  skip(bytes: Uint8Array, from: number): number {
    const [root, depths] = [this.#root, this.#depth];
    const { stride } = this.#sieve;
    let state = 0;
    let at = from;
    let plainUntil = from;
    let sievedFrom = stride === 0 ? bytes.length : from;
    for (; at < bytes.length; at++) {
      if (state === 0 && at >= sievedFrom) {
        if (at >= plainUntil) plainUntil = plainEnd(bytes, at);
        at = this.#sieve.pass(bytes, at, plainUntil);
        // What stopped it is looked at byte by byte.
        sievedFrom = at + stride;
      }
      const byte = bytes[at] ?? 0;
      if (BLANK[byte] === 1) continue;
      if (byte === ESCAPE) break;
      state = state === 0 ? (root[byte] ?? 0) : this.next(state, byte);
      if (state !== 0 && (depths[state] ?? 0) >= SUSPECT_BYTES) {
        at += 1;
        break;
      }
    }
    // Back to where it began: white space apart, all of it is before `at`.
    for (let left = depths[state] ?? 0; left > 0;) {
      at -= 1;
      if (BLANK[bytes[at] ?? 0] === 0) left -= 1;
    }
    return at;
  }

  /** Length of the longest beginning of a needle that ends here. */
  depth(state: number): number {
    return this.#depth[state] ?? 0;
  }

  /** Length of the longest beginning that ends here and is more than half of its needle; 0 when there is none. */
  half(state: number): number {
    let from = state;
    while (from !== 0 && this.depth(from) * 2 <= (this.#shortest[from] ?? 0)) from = this.#suffix[from] ?? 0;
    return this.depth(from);
  }

  /** Length of the longest needle that ends here; 0 when there is none. */
  matched(state: number): number {
    return this.#matched[state] ?? 0;
  }

  /** The secret of that needle. */
  secret(state: number): number {
    return this.#secret[state] ?? 0;
  }

  #child(state: number, byte: number): number {
    if (state === 0) return this.#root[byte] ?? 0;
    if (this.#depth[state] === 1) return this.#pairs[(this.#byte[state] ?? 0) * 256 + byte] ?? 0;
    let child = this.#firstChild[state] ?? 0;
    while (child !== 0 && this.#byte[child] !== byte) child = this.#nextSibling[child] ?? 0;
    return child;
  }

  #add({ secret, bytes }: Needle): void {
    let state = 0;
    for (const byte of bytes) {
      state = this.#child(state, byte) || this.#grow(state, byte);
      this.#shortest[state] = Math.min(this.#shortest[state] || bytes.length, bytes.length);
    }
    this.#matched[state] = bytes.length;
    this.#secret[state] = secret;
  }

  #grow(parent: number, byte: number): number {
    const state = this.#used++;
    this.#byte[state] = byte;
    this.#depth[state] = this.depth(parent) + 1;
    if (parent === 0) this.#root[byte] = state;
    else {
      if (this.#depth[parent] === 1) this.#pairs[(this.#byte[parent] ?? 0) * 256 + byte] = state;
      this.#nextSibling[state] = this.#firstChild[parent] ?? 0;
      this.#firstChild[parent] = state;
    }
    return state;
  }

  /** Breadth first: a suffix is shorter, so it is complete before the state that falls back to it. */
  #link(): void {
    const queue = new Int32Array(this.#used);
    let end = 0;
    for (const state of this.#root) if (state !== 0) queue[end++] = state;
    for (let at = 0; at < end; at++) {
      const state = queue[at] ?? 0;
      const suffix = this.#suffix[state] ?? 0;
      if (this.#matched[state] === 0) {
        this.#matched[state] = this.matched(suffix);
        this.#secret[state] = this.secret(suffix);
      }
      for (let child = this.#firstChild[state] ?? 0; child !== 0; child = this.#nextSibling[child] ?? 0) {
        this.#suffix[child] = this.next(suffix, this.#byte[child] ?? 0);
        queue[end++] = child;
      }
    }
  }
}

/** Up to where, from a place, there is no colour sequence; not farther than a window. */
function plainEnd(bytes: Uint8Array, from: number): number {
  const end = Math.min(from + WINDOW_BYTES, bytes.length);
  const colour = bytes.subarray(from, end).indexOf(ESCAPE);
  return colour === -1 ? end : from + colour;
}
