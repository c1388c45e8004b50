import { CLOSE_CODES, type Millis } from "@plumule/protocol";
import { isStalled, roomIn, shareOf, spend } from "./credit.ts";
import { encodeFrame } from "./feed.ts";
import { decodeSession, encodeSession, type Session } from "./subscription.ts";

/** What the platform gives an object for its sockets. */
export type SocketHost = Pick<
  DurableObjectState,
  "acceptWebSocket" | "getWebSockets" | "setWebSocketAutoResponse" | "waitUntil"
>;

/** The open sockets of an object with what their attachments say. */
export type Sockets = {
  /** Those that can still be sent to. */
  open(): WebSocket[];
  /** Takes over a new socket. */
  add(ws: WebSocket, session: Session, frames: readonly string[]): void;
  /**
   * Sends frames, with a mark behind them when it is due, and stores where the socket stands then: a fresh instance begins with exactly that.
   */
  put(ws: WebSocket, session: Session, frames: readonly string[]): void;
  /**
   * Works on a socket, unless it is closing. A fault ends this socket alone, so that neither the others nor the request that
   * caused the frames suffer; its client comes back with its cursors.
   */
  guarded(ws: WebSocket, work: (session: Session) => void): void;
  /** Call it when a socket has gone. */
  gone(): void;
  /** Characters that the client may be sent before it confirms that it reads; at most 0 when it has to confirm first. Lets a client go that has not for long. */
  room(ws: WebSocket, session: Session): number;
};

/** The sockets of an object. */
export function createSockets(host: SocketHost): Sockets {
  /** Attachments that this instance has read or written, decoded. */
  const sessions = new WeakMap<WebSocket, Session>();
  let share = shareOf(host.getWebSockets().length);

  const sockets: Sockets = {
    open: () => host.getWebSockets().filter(isOpen),
    add(ws, session, frames) {
      host.acceptWebSocket(ws);
      share = shareOf(host.getWebSockets().length);
      sockets.put(ws, session, frames);
    },
    put(ws, session, frames) {
      let { credit } = session;
      for (const frame of frames) {
        ws.send(frame);
        const spent = spend(credit, frame, share, mintMark);
        credit = spent.credit;
        if (spent.mark !== null) ws.send(encodeFrame({ op: "mark", number: spent.mark }));
      }
      const next = { ...session, credit };
      sessions.set(ws, next);
      ws.serializeAttachment(encodeSession(next));
    },
    guarded(ws, work) {
      if (!isOpen(ws)) return;
      try {
        const session = sessions.get(ws) ?? decodeSession(ws.deserializeAttachment());
        if (session === null) return ws.close(CLOSE_CODES.restart, "resume with your cursors");
        // Looked at when there is something to do for it: a timer would keep the object from hibernating, and a silent socket learns nothing.
        if (session.until <= Date.now()) return ws.close(CLOSE_CODES.restart, "show your credential anew");
        sessions.set(ws, session);
        work(session);
      } catch (fault) {
        reportError(fault);
        ws.close(CLOSE_CODES.internal, "a fault of the broker");
      }
    },
    gone() {
      share = shareOf(host.getWebSockets().length);
    },
    room(ws, session) {
      if (isStalled(session.credit, share, Date.now()))
        ws.close(CLOSE_CODES.tooSlow, "nothing was confirmed for too long");
      return roomIn(session.credit, share);
    },
  };
  return sockets;
}

/** The number is random: only who has read so far can send it back. */
function mintMark(): { number: number; at: Millis } {
  const [number = 0] = crypto.getRandomValues(new Uint32Array(1));
  return { number, at: Date.now() };
}

function isOpen(ws: WebSocket): boolean {
  return ws.readyState === WebSocket.READY_STATE_OPEN;
}
