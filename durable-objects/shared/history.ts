import { LIMITS, refuse, type EventsPage, type Refusal } from "@plumule/protocol";
import { cursorAt, followCursor, type LostCursor } from "./cursor.ts";
import type { EventLog } from "./event-log.ts";

/** Event history over HTTP: pages, and a long poll for what comes next. */
export type History = {
  /**
   * Events after `since`; null means from the oldest that is kept. An empty page is held back for at most `waitMs` until `wake`.
   * Refuses `invalid-cursor`, `cursor-expired`, and `rate-limited` when too many wait already.
   */
  read(call: { since: string | null; limit: number; waitMs: number }): Promise<EventsPage | Refusal>;
  /** Call it after a commit that appended events. */
  wake(): void;
};

/** The history of an event log. Those who wait are in memory only: an evicted object drops them, and they ask again with their cursor. */
export function createHistory(log: EventLog): History {
  const waiting = new Set<() => void>();

  const readPage = (after: number, limit: number): EventsPage => {
    const { events, more } = log.page(after, limit);
    return { events, cursor: cursorAt(log, Number(events.at(-1)?.sequence ?? after)), more };
  };

  const parked = (waitMs: number): Promise<void> =>
    new Promise((resolve) => {
      const leave = (): void => {
        clearTimeout(timer);
        waiting.delete(leave);
        resolve();
      };
      const timer = setTimeout(leave, waitMs);
      waiting.add(leave);
    });

  return {
    async read({ since, limit, waitMs }) {
      const from = since === null ? { after: log.oldest() - 1 } : followCursor(since, log);
      if ("lost" in from) return refuseLost(from);
      const bounded = Math.min(limit, LIMITS.eventsPage);
      const page = readPage(from.after, bounded);
      if (page.events.length > 0 || waitMs <= 0) return page;
      if (waiting.size >= LIMITS.parkedHistories)
        return refuse("rate-limited", `${LIMITS.parkedHistories} readers wait for events here already`, {
          headers: { "Retry-After": "5" },
        });
      await parked(Math.min(waitMs, LIMITS.historyHoldMs));
      return readPage(from.after, bounded);
    },
    wake() {
      for (const leave of waiting) leave();
    },
  };
}

/** A reader of pages cannot be sent a snapshot, so it is told what to do. */
function refuseLost({ lost }: LostCursor): Refusal {
  if (lost === "cursor-unknown")
    return refuse("invalid-cursor", "`since` is not a cursor that this stream has handed out");
  if (lost === "epoch-changed") return refuse("cursor-expired", "`since` belongs to an earlier history of this stream");
  return refuse("cursor-expired", `the events after \`since\` are no longer kept (${LIMITS.eventsKept} are)`);
}
