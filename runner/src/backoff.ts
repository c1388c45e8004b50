/** Delays of a retry: doubling from `firstMs` to `capMs`, each drawn evenly from zero to that bound (full jitter), so that a fleet does not come back in step. */
export type Backoff = { next(): number; reset(): void };

/** Makes a backoff. `random` is Math.random but in tests. */
export function createBackoff(firstMs: number, capMs: number, random: () => number = Math.random): Backoff {
  let boundMs = firstMs;
  return {
    next() {
      const delayMs = Math.round(random() * boundMs);
      boundMs = Math.min(boundMs * 2, capMs);
      return delayMs;
    },
    reset() {
      boundMs = firstMs;
    },
  };
}

/** Waits, or returns at once when the signal is or becomes aborted. Never rejects. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted === true) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done, { once: true });
  });
}
