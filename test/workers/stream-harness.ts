import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import {
  refuse,
  replyTo,
  serverFrameSchema,
  STREAM_SUBPROTOCOL,
  type Event,
  type Refusal,
  type RunId,
  type ServerFrame,
} from "@plumule/protocol";
import { createEventLog, EVENT_LOG_MIGRATION, type EventLog } from "#durable-objects/shared/event-log.ts";
import type { WatchedLog } from "#durable-objects/shared/feed.ts";
import type { SocketHost } from "#durable-objects/shared/sockets.ts";
import { transact } from "#durable-objects/shared/transact.ts";
import { createWatchers, type Watchers } from "#durable-objects/shared/watchers.ts";

export const RUN: RunId = "01234567-89ab-7001-8000-000000000001";

/** A stream inside a real object: real SQL and real hibernating sockets. The pool is only the host, as it has no events of its own. */
export type Stream = {
  state: DurableObjectState;
  log: EventLog;
  watchers: Watchers;
  runLog: { bytes: Uint8Array; complete: boolean };
  /** Commits `count` events of `padding` characters without telling the watchers. */
  append: (count: number, padding?: number, type?: Event["type"]) => Event[];
  /** Commits events and tells the watchers. */
  publish: (count: number, padding?: number, type?: Event["type"]) => Event[];
  /** Adds bytes to the run's log. */
  write: (bytes: Uint8Array, complete?: boolean) => void;
  connect: () => Client;
  /**
   * Hibernates and wakes: everything in memory is new, sockets and storage are the same. As in the runtime, the old instance stays until what it
   * gave to `waitUntil` has ended.
   */
  wake: () => Promise<void>;
};

/** The far end of a socket. It answers marks and chunks as every client has to, unless it is `busy`. */
export type Client = {
  frames: ServerFrame[];
  closed: { code: number; reason: string } | null;
  busy: boolean;
  send: (frame: unknown) => void;
  sendRaw: (raw: string | ArrayBuffer) => void;
  /** Handles what was left lying while it was busy. */
  resume: () => void;
  /** Waits for a frame; throws when none comes. */
  until: (test: (frame: ServerFrame) => boolean) => Promise<ServerFrame>;
  cut: () => void;
};

/** Runs inside an object of the given name, which must be new. */
export function inStream<T>(name: string, run: (stream: Stream) => Promise<T>): Promise<T> {
  return runInDurableObject(env.POOL.getByName(`stream-harness/${name}`), async (_, state) => {
    state.storage.sql.exec(EVENT_LOG_MIGRATION.sql);
    return await run(createStream(state));
  });
}

function createStream(state: DurableObjectState): Stream {
  const log = createEventLog(state.storage, "/test/deployments/one");
  const runLog = { bytes: new Uint8Array(), complete: false };
  const readLog = (run: RunId, offset: number, limit: number): WatchedLog | Refusal => {
    if (run !== RUN) return refuse("not-found", "no such run");
    const { bytes, complete } = runLog;
    const logState = complete ? "complete" : "open";
    return {
      bytes: bytes.slice(offset, offset + limit),
      offset,
      size: bytes.length,
      complete,
      sha256: null,
      state: logState,
    };
  };
  const snapshot = (): unknown => ({ deployment: null, jobs: [], cursor: "" });
  const pending = new Set<Promise<unknown>>();
  const ctx: SocketHost = {
    acceptWebSocket: (ws) => state.acceptWebSocket(ws),
    getWebSockets: () => state.getWebSockets(),
    setWebSocketAutoResponse: (pair) => state.setWebSocketAutoResponse(pair),
    waitUntil: (work) => void pending.add(work),
  };
  const start = (): Watchers => createWatchers({ ctx, log, snapshot, readLog });
  const stream: Stream = {
    state,
    log,
    watchers: start(),
    runLog,
    append(count, padding = 0, type = "job.progress") {
      const drafts = Array.from({ length: count }, () => ({
        type: type as "job.progress",
        subject: "jobs/none",
        data: { padding: "x".repeat(padding) },
      }));
      return transact(state.storage, () => log.append(drafts, "admin", Date.now(), () => crypto.randomUUID()));
    },
    publish(count, padding, type) {
      const events = stream.append(count, padding, type);
      stream.watchers.published(events);
      return events;
    },
    write(bytes, complete = false) {
      const grown = new Uint8Array(runLog.bytes.length + bytes.length);
      grown.set(runLog.bytes);
      grown.set(bytes, runLog.bytes.length);
      Object.assign(runLog, { bytes: grown, complete });
      stream.watchers.logGrew(RUN);
    },
    connect: () => connect(stream),
    async wake() {
      await Promise.all(pending);
      stream.watchers = start();
    },
  };
  return stream;
}

function connect(stream: Stream): Client {
  const before = new Set(stream.state.getWebSockets());
  const response = stream.watchers.accept(upgrade());
  const far = response.webSocket;
  const near = stream.state.getWebSockets().find((ws) => !before.has(ws));
  if (far === null || near === undefined) throw new Error(`no socket: ${response.status}`);
  const unhandled: ServerFrame[] = [];
  const client: Client = {
    frames: [],
    closed: null,
    busy: false,
    send: (frame) => client.sendRaw(JSON.stringify(frame)),
    sendRaw: (raw) => stream.watchers.message(near, raw),
    resume() {
      client.busy = false;
      for (const frame of unhandled.splice(0)) handle(frame);
    },
    async until(test) {
      for (let attempt = 0; attempt < 400; attempt += 1) {
        const found = client.frames.find(test);
        if (found !== undefined) return found;
        await scheduler.wait(5);
      }
      throw new Error(`no such frame in ${JSON.stringify(client.frames).slice(0, 2_000)}`);
    },
    cut: () => far.close(1000, "cut"),
  };
  const handle = (frame: ServerFrame): void => {
    client.frames.push(frame);
    const reply = replyTo(frame);
    if (reply !== null) client.send(reply);
  };
  far.addEventListener("message", ({ data }) => {
    const frame = serverFrameSchema.parse(JSON.parse(data as string));
    if (client.busy) unhandled.push(frame);
    else handle(frame);
  });
  far.addEventListener("close", ({ code, reason }) => {
    client.closed = { code, reason };
  });
  far.accept();
  return client;
}

/** A proper request for a stream. */
export function upgrade(headers: Record<string, string> = {}): Request {
  return new Request("http://broker/v1/test/deployments/one/stream", {
    headers: { Upgrade: "websocket", "Sec-WebSocket-Protocol": `${STREAM_SUBPROTOCOL}, ticket.abc`, ...headers },
  });
}
