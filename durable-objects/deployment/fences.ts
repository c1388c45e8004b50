import { LIMITS, type RunId } from "@plumule/protocol";
import type { FencedWrite } from "../namespace/calls.ts";

/**
 * Writes with a lease that was taken away, until the namespace's audit log has them. In memory, because what is refused writes no row;
 * one of a run is enough, because a runner that was cut off may go on for long.
 */
export type Fences = {
  /** Whether it was news. */
  note(write: Omit<FencedWrite, "id">): boolean;
  waiting(): FencedWrite[];
  /** The first so many were told. */
  told(count: number): void;
};

/** Makes the memory of a deployment's fenced writes. */
export function createFences(): Fences {
  const waiting: FencedWrite[] = [];
  const known = new Set<RunId>();
  return {
    note(write) {
      if (known.has(write.run) || waiting.length >= LIMITS.fencedWrites) return false;
      if (known.size >= LIMITS.fencedWrites) known.clear();
      known.add(write.run);
      waiting.push({ ...write, id: crypto.randomUUID() });
      return true;
    },
    waiting: () => [...waiting],
    told: (count) => void waiting.splice(0, count),
  };
}
