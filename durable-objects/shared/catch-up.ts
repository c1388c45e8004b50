/** Sockets that are behind and are brought up to date piece by piece. */
export type CatchUp = {
  /** Sends a socket its first piece at once, and the rest in turns with the others. */
  serve(ws: WebSocket): void;
};

/** Pieces that are sent before the object looks at its other work: a few milliseconds of it. */
const TURNS_AT_ONCE = 8;

/**
 * Brings sockets up to date in rounds, one piece for each, so that a long replay holds up neither other sockets nor other requests.
 * `turn` sends the next piece and says whether another can follow now; a socket whose client has to read first leaves the
 * rounds and is served again when it has. When nobody is left the object may hibernate.
 *
 * @param waitUntil keeps the object awake for a piece of work.
 */
export function createCatchUp(turn: (ws: WebSocket) => boolean, waitUntil: (work: Promise<void>) => void): CatchUp {
  const behind = new Set<WebSocket>();

  const run = async (): Promise<void> => {
    let turnCount = 0;
    while (behind.size > 0) {
      for (const ws of behind) {
        if (turnCount % TURNS_AT_ONCE === 0) await scheduler.wait(0);
        turnCount += 1;
        if (!turn(ws)) behind.delete(ws);
      }
    }
  };

  return {
    serve(ws) {
      if (behind.has(ws) || !turn(ws)) return;
      behind.add(ws);
      if (behind.size === 1) waitUntil(run());
    },
  };
}
