import { currentContext, type Context, runAs } from "./clock.ts";

/** States of a WebSocket (WHATWG), as workerd names them too. */
const [CONNECTING, OPEN, CLOSING, CLOSED] = [0, 1, 2, 3];

/** What carries the frames of one socket. Frames keep their order; a cut loses those on their way. */
export type Wire = {
  toClient(deliver: () => void): void;
  toServer(deliver: () => void): void;
};

/** What an object hears of its sockets. */
export type SocketEvents = {
  message(end: ServerEnd, data: string): void;
  close(end: ServerEnd, code: number, reason: string): void;
  error(end: ServerEnd): void;
  /** The output gate of the object. */
  leave(send: () => void): void;
  /** The answer that the platform gives to a frame by itself, or null. */
  autoResponse(data: string): string | null;
};

/** The end of a socket that an object holds. It outlives the object's instances while they hibernate, with its attachment. */
export class ServerEnd {
  readyState = OPEN;
  accepted: SocketEvents | null = null;
  wire: Wire | null = null;
  /** What was sent before the other end was there. */
  #early: (() => void)[] = [];
  #attachment: unknown = null;
  readonly client: ClientEnd;

  constructor(client: ClientEnd) {
    this.client = client;
  }

  /** Accepts it without hibernation: only to close it. */
  accept(): void {}

  send(data: string): void {
    if (this.readyState >= CLOSING) throw new TypeError("Can't call WebSocket send() after close().");
    this.#leave(() => this.client.receive(data));
  }

  close(code = 1005, reason = ""): void {
    if (this.readyState === CLOSED) return;
    // Closing what the client has closed ends the handshake; else the client is told.
    const isAnswer = this.readyState === CLOSING;
    this.readyState = CLOSED;
    if (!isAnswer) this.#leave(() => this.client.closed(code, reason));
  }

  serializeAttachment(value: unknown): void {
    const text = JSON.stringify(value);
    if (text.length > 16_000) throw new Error("the attachment is too large");
    this.#attachment = value;
  }

  deserializeAttachment(): unknown {
    return this.#attachment;
  }

  /** The other end is there. */
  connect(wire: Wire): void {
    this.wire = wire;
    for (const early of this.#early.splice(0)) wire.toClient(early);
  }

  receive(data: string): void {
    const events = this.accepted;
    if (this.readyState !== OPEN || events === null) return;
    const answer = events.autoResponse(data);
    if (answer === null) events.message(this, data);
    else this.#send(() => this.client.receive(answer));
  }

  /** The client closed. */
  clientClosed(code: number, reason: string): void {
    if (this.readyState !== OPEN) return;
    this.readyState = CLOSING;
    this.accepted?.close(this, code, reason);
  }

  /** The connection broke: nobody says goodbye. */
  broke(): void {
    if (this.readyState === CLOSED) return;
    this.readyState = CLOSED;
    this.accepted?.error(this);
  }

  #leave(deliver: () => void): void {
    const events = this.accepted;
    if (events === null) this.#send(deliver);
    else events.leave(() => this.#send(deliver));
  }

  #send(deliver: () => void): void {
    if (this.wire === null) this.#early.push(deliver);
    else this.wire.toClient(deliver);
  }
}

/** The other end, until a client takes it. */
export class ClientEnd {
  readonly server: ServerEnd = new ServerEnd(this);
  client: SimulatedWebSocket | null = null;

  receive(data: string): void {
    this.client?.hear("message", { data });
  }

  closed(code: number, reason: string): void {
    this.client?.ended(code, reason);
  }
}

/** `WebSocketPair` of the platform. */
export class SocketPair {
  readonly 0: ClientEnd = new ClientEnd();
  readonly 1: ServerEnd = this[0].server;
}

/** How a client reaches a server: it answers with the end of a socket, or null, and the wire between both. */
export type Dial = (
  url: string,
  protocols: readonly string[],
  opened: (end: ClientEnd, wire: Wire) => void,
  failed: () => void,
) => void;

type Listener = (event: { data: unknown; code: number; reason: string }) => void;

/** The `WebSocket` of a client. Its constants are those that objects use too. */
export class SimulatedWebSocket {
  static readonly CLOSING = CLOSING;
  static readonly READY_STATE_OPEN = OPEN;
  /** The way out of the world that is simulated. */
  static dial: Dial = () => undefined;
  readyState = CONNECTING;
  readonly #listeners = new Map<string, Listener[]>();
  readonly #context: Context | null = currentContext();
  #end: ClientEnd | null = null;
  #wire: Wire | null = null;

  constructor(url: string, protocols: readonly string[]) {
    const opened = (end: ClientEnd, wire: Wire): void => {
      if (this.readyState !== CONNECTING || this.#context?.owner.alive !== true)
        return end.server.clientClosed(1006, "");
      this.readyState = OPEN;
      this.#end = end;
      this.#wire = wire;
      end.client = this;
      end.server.connect(wire);
      this.hear("open", {});
    };
    SimulatedWebSocket.dial(url, protocols, opened, () => this.ended(1006, ""));
  }

  addEventListener(type: string, listener: Listener): void {
    this.#listeners.set(type, [...(this.#listeners.get(type) ?? []), listener]);
  }

  hear(type: string, event: Partial<Parameters<Listener>[0]>): void {
    const context = this.#context;
    if (this.readyState === CLOSED || context?.owner.alive !== true) return;
    for (const listener of this.#listeners.get(type) ?? [])
      runAs(context, () => listener({ data: null, code: 1005, reason: "", ...event }));
  }

  send(data: string): void {
    const server = this.#end?.server;
    if (this.readyState === OPEN && server !== undefined) this.#wire?.toServer(() => server.receive(data));
  }

  close(code = 1005, reason = ""): void {
    if (this.readyState >= CLOSING) return;
    this.readyState = CLOSING;
    const server = this.#end?.server;
    if (server !== undefined) this.#wire?.toServer(() => server.clientClosed(code, reason));
  }

  /** The server closed, or the connection broke. */
  ended(code: number, reason: string): void {
    this.hear("close", { code, reason });
    this.readyState = CLOSED;
  }
}
