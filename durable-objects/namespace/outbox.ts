import type { Millis } from "@plumule/protocol";
import type { EventDraft } from "../shared/event-log.ts";
import type { NamespaceContext } from "./context.ts";
import { isParked, retryAt } from "./core/retry.ts";
import { delayOutbox, deleteOutbox, type OutboxRow, readDueOutbox } from "./store/outbox.ts";

/** What is written, with the removal of the row, once the other object has answered. */
export type Delivered = (emit: (draft: EventDraft) => void) => void;

/** Not now: the row waits without an attempt being counted. */
export type Postponed = { later: Millis; detail: string };

/** How rows of one kind are handed over. `deliver` throws when it has to be tried again; it may run twice for one row. */
export type Courier = {
  deliver(payload: string): Promise<Delivered | Postponed>;
  /** What is written when the attempts are used up. */
  park(payload: string, reason: string): void;
  /** With its attempts used up a row is forgotten. Otherwise it waits for the object's next life. */
  givesUp?: true;
};

/** For a kind that this code does not know: a newer version wrote it, and may be back before the attempts are used up. */
const NO_COURIER: Courier = {
  deliver: () => Promise.reject(new Error("this kind of row is not known")),
  park: () => undefined,
};

/** Rows handed over at a time. */
const BATCH = 16;

/** The hand-over to other objects: at least once, in the background. */
export type Outbox = {
  /** Hands over what is due; resolves when every due row had its attempt. Never throws. */
  flush(): Promise<void>;
};

/** Makes the hand-over; `couriers` by kind of row. */
export function createOutbox(context: NamespaceContext, couriers: Readonly<Record<string, Courier>>): Outbox {
  let running: Promise<void> = Promise.resolve();

  const attempt = async ({ number, kind, payload, attempts }: OutboxRow): Promise<void> => {
    const courier = couriers[kind] ?? NO_COURIER;
    let outcome: Delivered | Postponed | { failed: string };
    try {
      outcome = await courier.deliver(payload);
    } catch (error) {
      outcome = { failed: error instanceof Error ? error.message : String(error) };
    }
    context.commit("broker", Date.now(), (emit) => {
      if (typeof outcome === "function") {
        outcome(emit);
        deleteOutbox(context.sql, number);
        return;
      }
      if ("later" in outcome) {
        // A row that was never tried counts as new, and would be tried again at once.
        delayOutbox(context.sql, number, Math.max(attempts, 1), outcome.later);
        return;
      }
      delayOutbox(context.sql, number, attempts + 1, retryAt(attempts + 1, Date.now()));
      if (!isParked(attempts + 1)) return;
      courier.park(payload, outcome.failed);
      if (courier.givesUp === true) deleteOutbox(context.sql, number);
    });
  };

  const pass = async (): Promise<void> => {
    for (;;) {
      const rows = readDueOutbox(context.sql, Date.now(), BATCH);
      if (rows.length === 0) return;
      await Promise.all(rows.map(attempt));
    }
  };

  return {
    flush() {
      // One pass at a time: two would hand the same row over twice.
      running = running.then(pass).catch(() => undefined);
      return running;
    },
  };
}
