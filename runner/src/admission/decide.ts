/** Memory of a run: what it uses now, and the most that such runs have used before; null when none was seen, bytes. */
export type RunMemory = { usedBytes: number; predictedBytes: number | null };

/** Left to everything else on the machine, the runner included, bytes. */
export const RESERVE_BYTES = 256 * 1024 * 1024;
/** What a job is taken for that was never seen, bytes. */
export const UNSEEN_BYTES = 256 * 1024 * 1024;

/**
 * Whether a run may begin beside those that are at work. `availableBytes` is free now, so what the others use is gone already; what they may
 * still grow by is spoken for. A run alone always begins: it may need less than before, and waiting would not make the machine larger.
 */
export function fits(predictedBytes: number | null, others: readonly RunMemory[], availableBytes: number): boolean {
  if (others.length === 0) return true;
  const growth = others.reduce(
    (sum, one) => sum + Math.max(0, (one.predictedBytes ?? UNSEEN_BYTES) - one.usedBytes),
    0,
  );
  return (predictedBytes ?? UNSEEN_BYTES) + growth + RESERVE_BYTES <= availableBytes;
}
