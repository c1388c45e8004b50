/** A seed that found something once, and what it was. It stays green from then on, as far as worlds still unfold as they did. */
export type PastFailure = { seed: number; was: string };

/** Past failures, oldest first. */
export const CORPUS: readonly PastFailure[] = [
  {
    seed: 1293,
    was: "a runner whose disk refused an assignment while it asked for more work waited for an answer to a forgotten key, for ever",
  },
  {
    seed: 1558,
    was: "a run whose lease the disk refused sent no heartbeat and had no end, so that its runner was full for ever",
  },
  {
    seed: 274,
    was: "a runner whose disk refused word for a run of what the broker had taken ended of it",
  },
];
