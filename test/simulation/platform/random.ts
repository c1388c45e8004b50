/** Numbers that look random and follow from a seed alone. */
export type Random = {
  /** From 0 to below 1. */
  next(): number;
  /** A whole number from `low` to below `high`. */
  between(low: number, high: number): number;
  /** True with this probability; 0 draws nothing, so that a fault that is switched off changes no other draw. */
  chance(probability: number): boolean;
  pick<T>(list: readonly [T, ...T[]]): T;
  /** Fills bytes. */
  fill(bytes: Uint8Array): void;
};

/**
 * A generator of its own for each purpose of a seed (`label`), so that one more draw for faults does not change what people do. It is sfc32,
 * which passes the usual batteries and needs no 64-bit numbers.
 */
export function createRandom(seed: number, label: string): Random {
  let [a, b, c, d] = mix(`${seed} ${label}`);
  const uint32 = (): number => {
    const sum = (a + b + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return sum >>> 0;
  };
  for (let round = 0; round < 12; round += 1) uint32();
  const next = (): number => uint32() / 2 ** 32;
  const between = (low: number, high: number): number => low + Math.floor(next() * (high - low));
  return {
    next,
    between,
    chance: (probability) => probability > 0 && next() < probability,
    pick: (list) => list[between(0, list.length)] ?? list[0],
    fill(bytes) {
      for (let at = 0; at < bytes.length; at += 4) {
        const word = uint32();
        for (let byte = at; byte < Math.min(at + 4, bytes.length); byte += 1) bytes[byte] = word >>> (8 * (byte - at));
      }
    },
  };
}

/** Folds text into a running hash of 32 bits (FNV-1a). */
export function foldHash(hash: number, text: string): number {
  let folded = hash;
  for (let at = 0; at < text.length; at += 1) folded = Math.imul(folded ^ text.charCodeAt(at), 0x01000193);
  return folded >>> 0;
}

function mix(text: string): [number, number, number, number] {
  const word = (salt: number): number => foldHash(foldHash(0x811c9dc5, `${salt}`), text);
  return [word(1), word(2), word(3), word(4)];
}
