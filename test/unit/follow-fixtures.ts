import {
  clientFrameSchema,
  type ClientFrame,
  type Event,
  formatCursor,
  formatSequence,
  parseCursor,
  type SocketLike,
  utf8,
} from "@plumule/protocol";

export const RUN = "01234567-89ab-7001-8000-000000000001";
export const TEXT = utf8("a log line\nänother one\nand the last\n");

function event(sequence: number): Event {
  return {
    specversion: "1.0",
    id: `00000000-0000-7000-8000-${sequence.toString().padStart(12, "0")}`,
    source: "/local/deployments/site",
    type: "job.progress",
    subject: "jobs/01234567-89ab-7000-8000-000000000001",
    time: "2026-11-20T12:00:00.000Z",
    sequence: formatSequence(sequence),
    actor: "test",
    datacontenttype: "application/json",
    data: {},
  };
}

/**
 * A broker's stream as it is documented: snapshot or replay in pages of two, then what was published while the socket was open; a log in
 * chunks of five bytes. `cutAfter` frames of each connection it is gone without a word, even in the middle of a page's replay.
 */
export class FakeBroker {
  readonly connections: FakeSocket[] = [];
  readonly asked: ClientFrame[] = [];
  readonly #cuts: number[];
  #head: number;

  constructor({ head, cuts }: { head: number; cuts: readonly number[] }) {
    this.#head = head;
    this.#cuts = [...cuts];
  }

  open(): SocketLike {
    const socket = new FakeSocket(this.#cuts.shift() ?? Number.POSITIVE_INFINITY, (frame) => this.#obey(socket, frame));
    this.connections.push(socket);
    socket.deliver({
      op: "welcome",
      protocol: 1,
      heartbeatMs: 25_000,
      limits: { subscriptions: 32, frameBytes: 1, logCreditBytes: 1 },
    });
    return socket;
  }

  publish(count: number): void {
    const events = Array.from({ length: count }, () => event((this.#head += 1)));
    this.connections.at(-1)?.deliver({ op: "events", id: "events", cursor: formatCursor(1, this.#head), events });
  }

  #obey(socket: FakeSocket, frame: ClientFrame): void {
    this.asked.push(frame);
    if (frame.op === "subscribe") this.#replay(socket, frame.id, frame.since);
    if (frame.op === "log") this.#sendLog(socket, frame);
  }

  #replay(socket: FakeSocket, id: string, since: string | undefined): void {
    const deployment = { id: "site" };
    if (since === undefined)
      socket.deliver({
        op: "snapshot",
        id,
        cursor: formatCursor(1, 2),
        state: { deployment, jobs: [], cursor: formatCursor(1, 2) },
      });
    let at = since === undefined ? 2 : parseCursor(since)!.sequence;
    while (at < this.#head) {
      const events = [event(at + 1), event(at + 2)].slice(0, this.#head - at);
      at += events.length;
      socket.deliver({ op: "events", id, cursor: formatCursor(1, at), events });
    }
    socket.deliver({ op: "live", id, cursor: formatCursor(1, at), recovered: since !== undefined, replayed: 0 });
  }

  #sendLog(socket: FakeSocket, { id, offset = 0 }: Extract<ClientFrame, { op: "log" }>): void {
    for (let at = offset; at < TEXT.length; at += 5) {
      const bytes = TEXT.subarray(at, at + 5);
      socket.deliver({
        op: "chunk",
        id,
        offset: at,
        bytes: bytes.length,
        base64: Buffer.from(bytes).toString("base64"),
      });
    }
    socket.deliver({ op: "end", id, bytes: TEXT.length, sha256: null, state: "complete" });
  }
}

/** A socket whose frames arrive one per turn, as those of real ones do, until it is cut. */
export class FakeSocket implements SocketLike {
  readonly #listeners: {
    message: ((event: { data: unknown }) => void)[];
    close: ((event: { code: number; reason: string }) => void)[];
  } = { message: [], close: [] };
  readonly #onFrame: (frame: ClientFrame) => void;
  #left: number;
  readonly pings: string[] = [];
  closed = false;

  constructor(frameCount: number, onFrame: (frame: ClientFrame) => void) {
    this.#left = frameCount;
    this.#onFrame = onFrame;
  }

  addEventListener(type: "message" | "close", listener: never): void {
    (this.#listeners[type] as unknown[]).push(listener);
  }

  send(text: string): void {
    if (text === "ping") this.pings.push(text);
    else this.#onFrame(clientFrameSchema.parse(JSON.parse(text)));
  }

  close(): void {
    this.closed = true;
  }

  deliver(frame: unknown): void {
    setImmediate(() => {
      if (this.#left <= 0) return;
      this.#left -= 1;
      for (const listener of this.#listeners.message)
        listener({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
      if (this.#left === 0) this.lose(1006, "");
    });
  }

  lose(code: number, reason: string): void {
    this.#left = 0;
    for (const listener of this.#listeners.close) listener({ code, reason });
  }
}
