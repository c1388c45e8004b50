import type { RunId } from "@plumule/protocol";

/** Heartbeats that wait for a command. In memory only: an evicted object drops them, and the runner sends the next one. */
export type HeldHeartbeats = {
  /** Resolves when `settled` is true after some commit, when a newer heartbeat of the run comes, or after `waitMs`. */
  hold(run: RunId, waitMs: number, settled: () => boolean): Promise<void>;
  /** Call it after a commit. */
  wake(): void;
};

/** The held heartbeats of one object: at most one per run. */
export function createHeldHeartbeats(): HeldHeartbeats {
  const held = new Map<RunId, { settled: () => boolean; leave: () => void }>();
  return {
    hold(run, waitMs, settled) {
      held.get(run)?.leave();
      return new Promise((resolve) => {
        const leave = (): void => {
          clearTimeout(timer);
          held.delete(run);
          resolve();
        };
        const timer = setTimeout(leave, waitMs);
        held.set(run, { settled, leave });
      });
    },
    wake() {
      for (const { settled, leave } of held.values()) if (settled()) leave();
    },
  };
}
