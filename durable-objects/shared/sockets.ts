import { CLOSE_CODES, LIMITS } from "@plumule/protocol";
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
  add(ws: WebSocket, session: Session): void;
  /** Stores where a socket stands; a fresh instance begins with exactly that. */
  save(ws: WebSocket, session: Session): void;
  /**
   * Works on a socket, unless it is closing. A fault ends this socket alone, so that neither the others nor the request that
   * caused the frames suffer; its client comes back with its cursors.
   */
  guarded(ws: WebSocket, work: (session: Session) => void): void;
  /** Begins the end of a socket. */
  close(ws: WebSocket, code: number, reason: string): void;
  /** Call it when a socket has gone. */
  gone(): void;
  /** True when a live frame for the socket would only grow its queue: it does not read. */
  isOverfull(ws: WebSocket): boolean;
  /** True when the socket should be left to read before it gets more old events or log: half of `isOverfull`, so that there is room for live events. */
  isFull(ws: WebSocket): boolean;
};

/** The sockets of an object. */
export function createSockets(host: SocketHost): Sockets {
  /** Attachments that this instance has read or written, decoded. */
  const sessions = new WeakMap<WebSocket, Session>();
  let share = 0;
  /** Each socket may queue its limit, or its share of the object's memory when there are many. */
  const divide = (): void => {
    share = Math.min(LIMITS.socketBufferBytes, LIMITS.objectBufferBytes / Math.max(1, host.getWebSockets().length));
  };
  divide();

  const sockets: Sockets = {
    open: () => host.getWebSockets().filter(isOpen),
    add(ws, session) {
      host.acceptWebSocket(ws);
      sockets.save(ws, session);
      divide();
    },
    save(ws, session) {
      sessions.set(ws, session);
      ws.serializeAttachment(encodeSession(session));
    },
    guarded(ws, work) {
      if (!isOpen(ws)) return;
      try {
        const session = sessions.get(ws) ?? decodeSession(ws.deserializeAttachment());
        if (session === null) return ws.close(CLOSE_CODES.restart, "resume with your cursors");
        sessions.set(ws, session);
        work(session);
      } catch (fault) {
        reportError(fault);
        ws.close(CLOSE_CODES.internal, "a fault of the broker");
      }
    },
    close: (ws, code, reason) => ws.close(code, reason),
    gone: divide,
    isOverfull: (ws) => queuedBytes(ws) > share,
    isFull: (ws) => queuedBytes(ws) > share / 2,
  };
  return sockets;
}

function isOpen(ws: WebSocket): boolean {
  return ws.readyState === WebSocket.READY_STATE_OPEN;
}

/** Bytes that were sent and that the peer has not taken yet. workerd has the property, its types do not. */
function queuedBytes(ws: WebSocket & { bufferedAmount?: number }): number {
  return ws.bufferedAmount ?? 0;
}
