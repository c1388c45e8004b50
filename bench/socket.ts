import { type ClientFrame, replyTo, type ServerFrame } from "@plumule/protocol";

/** A frame with the time when it was here, ms of `performance.now()`. */
export type Arrival = { frame: unknown; at: number };

/** An open socket that notes when frames come. */
export type Listening = {
  /** The first frame from now on, or already here since the last call, that is wanted. Those before it are forgotten. */
  next(wanted: (frame: unknown) => boolean): Promise<Arrival>;
  send(frame: ClientFrame): void;
  close(): void;
};

const PATIENCE_MS = 10_000;

/** Opens a socket and answers what keeps a plumule stream flowing. */
export async function listen(url: string, protocols: readonly string[] = []): Promise<Listening> {
  const socket = new WebSocket(url.replace(/^http/, "ws"), [...protocols]);
  const arrivals: Arrival[] = [];
  let look: (() => void) | null = null;
  socket.addEventListener("message", ({ data }) => {
    const at = performance.now();
    const frame: unknown = JSON.parse(String(data));
    const reply = replyTo(frame as ServerFrame);
    if (reply !== null) socket.send(JSON.stringify(reply));
    arrivals.push({ frame, at });
    look?.();
  });
  await new Promise<void>((resolve, reject) => {
    socket.addEventListener("open", () => resolve());
    socket.addEventListener("close", ({ code, reason }) => reject(new Error(`${url} closed: ${code} ${reason}`)));
  });
  return {
    next(wanted) {
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`no such frame at ${url} in ${PATIENCE_MS} ms`)), PATIENCE_MS);
        look = () => {
          const index = arrivals.findIndex(({ frame }) => wanted(frame));
          const [arrival] = index === -1 ? [] : arrivals.splice(0, index + 1).slice(-1);
          if (arrival === undefined) return;
          look = null;
          clearTimeout(timer);
          resolve(arrival);
        };
        look();
      });
    },
    send: (frame) => socket.send(JSON.stringify(frame)),
    close: () => socket.close(),
  };
}

/** True for a frame that tells an event of this type about this subject. */
export function isEventOf(frame: unknown, subject: string, type: string): boolean {
  const { op, events } = frame as ServerFrame & { events?: readonly { subject: string; type: string }[] };
  return op === "events" && events?.some((event) => event.subject === subject && event.type === type) === true;
}
