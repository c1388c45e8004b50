import { isBlank } from "./redact-forms.ts";

/** Visible bytes that are looked up together: so many are rarely by chance those of a needle. */
const GRAM_BYTES = 4;
/** With shorter strides nothing is gained; longer ones gain little. */
const STRIDE_MIN = 8;
const STRIDE_MAX = 64;
/** The table has one place for each hash of so many bits. */
const HASH_BITS = 17;
/** Whether a byte is white space, by its value. */
export const BLANK = Uint8Array.from({ length: 256 }, (_, byte) => (isBlank(byte) ? 1 : 0));

/**
 * Tells stretches of bytes in which no needle begins, and looks at few of them for it: whatever needle there is, four of its visible bytes in a
 * row stand at one of the places that are looked at, which are closer to each other than the shortest needle is long.
 */
export class Sieve {
  /** Bytes between two places that are looked at; 0 when the needles are too short for this. */
  readonly stride: number;
  readonly #grams = new Uint8Array(1 << HASH_BITS);

  constructor(needles: readonly Uint8Array[]) {
    const shortest = needles.reduce((least, { length }) => Math.min(least, length), STRIDE_MAX + GRAM_BYTES - 1);
    const stride = shortest - GRAM_BYTES + 1;
    this.stride = stride < STRIDE_MIN ? 0 : stride;
    if (this.stride === 0) return;
    for (const needle of needles) {
      let gram = 0;
      for (const [at, byte] of needle.entries()) {
        gram = (gram << 8) | byte;
        if (at >= GRAM_BYTES - 1) this.#grams[hashOf(gram)] = 1;
      }
    }
  }

  /**
   * The first place, from one where none has begun, at which a needle may begin. Before `end`, where no colour may stand: behind what cannot be told
   * from so few bytes.
   */
  pass(bytes: Uint8Array, from: number, end: number): number {
    const [grams, stride] = [this.#grams, this.stride];
    for (let place = from + stride - 1; ; place += stride) {
      let gram = 0;
      let at = place;
      for (let left = GRAM_BYTES; left > 0; at++) {
        // What is left here may be the beginning of one.
        if (at >= end) return place - stride + 1;
        const byte = bytes[at] ?? 0;
        if (BLANK[byte] === 1) continue;
        gram = (gram << 8) | byte;
        left -= 1;
      }
      if (grams[hashOf(gram)] === 1) return place - stride + 1;
    }
  }
}

function hashOf(gram: number): number {
  return Math.imul(gram, 0x9e3779b1) >>> (32 - HASH_BITS);
}
