import { LIMITS, type Millis } from "@plumule/protocol";
import type { EventLog } from "../shared/event-log.ts";
import { transact } from "../shared/transact.ts";
import { checkLocks } from "./locks.ts";
import { sweep } from "./store/sweep.ts";
import { planSweep, SWEEP_MS, sweepAt } from "./store/wake.ts";

/** Forgets what retention does not keep, in steps. */
export type Sweeper = {
  /** One step, when one is due; plans the next, also when the step failed. The caller arms the alarm. */
  sweepIfDue(now: Millis): void;
};

/** Pause between two steps of one sweep, ms: requests come first. */
const STEP_PAUSE_MS = 1_000;

/** Makes the sweeper of a namespace. */
export function createSweeper(storage: DurableObjectStorage, log: EventLog): Sweeper {
  return {
    sweepIfDue(now) {
      const due = sweepAt(storage.sql);
      if (due === null || due > now) return;
      try {
        transact(storage, () => {
          const { more, later } = sweep(storage.sql, now);
          log.prune(LIMITS.eventsKept);
          const locked = checkLocks(storage.sql, now);
          planSweep(storage.sql, more ? now + STEP_PAUSE_MS : later || locked ? now + SWEEP_MS : null);
        });
      } catch {
        // Retention is not worth an alarm that fails again and again, and with it the hand-overs.
        planSweep(storage.sql, now + SWEEP_MS);
      }
    },
  };
}
