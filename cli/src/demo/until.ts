import { setTimeout as pause } from "node:timers/promises";

/** Asks again and again until there is something; throws when it takes longer than `limitMs`. */
export async function until<T>(what: string, limitMs: number, look: () => Promise<T | null>): Promise<T> {
  for (const deadline = performance.now() + limitMs; performance.now() < deadline; await pause(25)) {
    const found = await look();
    if (found !== null) return found;
  }
  throw new Error(`${limitMs / 1000} s passed while waiting for ${what}`);
}
