/** Middle and far end of some durations, ms. */
export type Summary = { count: number; medianMs: number; p99Ms: number };

/** The value below which a share of the samples lies (nearest rank). Throws a RangeError without samples. */
export function percentile(samples: readonly number[], share: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const value = sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
  if (value === undefined) throw new RangeError("a percentile needs samples");
  return value;
}

/** Summarises durations in ms. */
export function summarise(samples: readonly number[]): Summary {
  return { count: samples.length, medianMs: percentile(samples, 0.5), p99Ms: percentile(samples, 0.99) };
}
