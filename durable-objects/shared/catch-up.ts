import { LIMITS } from "@plumule/protocol";

/** What catching up needs of the sockets. */
export type CatchUpDeps = {
  /** Sends the next piece to a socket; true when there is more for it. Never throws. */
  turn: (ws: WebSocket) => boolean;
  /** True while a socket has not taken enough of what was sent before. */
  isFull: (ws: WebSocket) => boolean;
  /** Ends a socket that stayed full for `LIMITS.socketStallMs`. */
  stalled: (ws: WebSocket) => void;
  /** Keeps the object awake for a piece of work. */
  waitUntil: (work: Promise<void>) => void;
};

/** Sockets that are behind and are brought up to date piece by piece. */
export type CatchUp = {
  /** Sends a socket its first piece at once, and the rest in turns with the others. */
  serve(ws: WebSocket): void;
  /** Forgets a socket. */
  leave(ws: WebSocket): void;
};

/** How long to wait for full sockets to drain before another look, ms. The runtime has no event for it. */
const DRAIN_PAUSE_MS = 20;

/** Pieces that are sent before the object looks at its other work: a few milliseconds of it. */
const TURNS_AT_ONCE = 8;

/**
 * Brings sockets up to date in rounds, one piece for each that has room. A full socket is passed over: it can neither fill
 * the memory nor hold up the others, and a reader of any speed gets the whole history as long as it keeps reading. The rounds end
 * when nobody is behind; from then on the object may hibernate.
 */
export function createCatchUp({ turn, isFull, stalled, waitUntil }: CatchUpDeps): CatchUp {
  /** Since when each socket is full; null while it takes what it is sent. */
  const behind = new Map<WebSocket, number | null>();
  let running = false;

  /** True when a piece was sent. */
  const attend = (ws: WebSocket): boolean => {
    const fullSince = behind.get(ws);
    if (fullSince === undefined) return false;
    if (!isFull(ws)) {
      behind.set(ws, null);
      if (!turn(ws)) behind.delete(ws);
      return true;
    }
    if (fullSince === null) behind.set(ws, Date.now());
    else if (Date.now() - fullSince > LIMITS.socketStallMs) {
      behind.delete(ws);
      stalled(ws);
    }
    return false;
  };

  const run = async (): Promise<void> => {
    running = true;
    try {
      while (behind.size > 0) {
        let sentCount = 0;
        for (const ws of behind.keys()) {
          if (!attend(ws)) continue;
          sentCount += 1;
          if (sentCount % TURNS_AT_ONCE === 0) await scheduler.wait(0);
        }
        await scheduler.wait(sentCount > 0 ? 0 : DRAIN_PAUSE_MS);
      }
    } finally {
      running = false;
    }
  };

  return {
    serve(ws) {
      if (behind.has(ws) || (!isFull(ws) && !turn(ws))) return;
      behind.set(ws, null);
      if (!running) waitUntil(run());
    },
    leave(ws) {
      behind.delete(ws);
    },
  };
}
