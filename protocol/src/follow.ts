import { call, pathOf, type ClientDeps } from "./client.ts";
import { streamDeployment, streamNamespace } from "./endpoints/jobs.ts";
import { createTicket } from "./endpoints/settings.ts";
import { ERRORS, type Problem } from "./errors.ts";
import type { Event } from "./events.ts";
import { followLog, type FollowedLog, type LogSink } from "./follow-log.ts";
import type { RunId } from "./ids.ts";
import { mayReconnect, replyTo, serverFrameSchema, type ClientFrame, type ServerFrame } from "./stream.ts";
import { STREAM_SUBPROTOCOL } from "./version.ts";
import { initialWatch, loseConnection, reduceFrame, type WatchState } from "./watch.ts";

/** The part of a WebSocket that is used; the global `WebSocket` of browsers and of Node fits. */
export type SocketLike = {
  addEventListener(type: "message", listener: (event: { data: unknown }) => void): void;
  addEventListener(type: "close", listener: (event: { code: number; reason: string }) => void): void;
  send(text: string): void;
  close(code?: number, reason?: string): void;
};

/**
 * What a follower needs of the world. `open` begins a connection: a socket that may still be connecting, or the problem that forbids
 * one; what it throws counts as a network that is down. `random` is 0 to below 1. `wait` ends early when the signal aborts.
 */
export type FollowDeps = {
  open: () => Promise<SocketLike | { problem: Problem }>;
  random: () => number;
  wait: (ms: number, signal: AbortSignal) => Promise<void>;
};

/** How the frames of a subscription become a state. `cursor` is where to resume, null to start from a snapshot. */
export type Fold<S> = {
  initial: S;
  reduce: (state: S, frame: ServerFrame) => S;
  lose: (state: S) => S;
  cursorOf: (state: S) => string | null;
};

/** Why following ended: its signal aborted, or the broker refuses in a way that connecting again would not change. */
export type FollowEnd = { ended: "aborted" } | { ended: "refused"; code: number; detail: string; next: string };

/** A subscription that reconnects by itself. */
export type Follower = {
  /** Follows a run's log on the same socket, from `offset` or from `tail` bytes before its end. Returns how to stop. */
  log: (run: RunId, sink: LogSink, from?: { offset: number } | { tail: number }) => () => void;
  /** Settles when nothing more will come. Never rejects. */
  done: Promise<FollowEnd>;
};

/** First and longest pause before connecting again, ms: with full jitter, so that watchers of a restarted broker do not come all at once. */
const RECONNECT_MIN_MS = 500;
const RECONNECT_MAX_MS = 30_000;
/** Silence after which a watcher says `ping`, ms, until the broker's `welcome` names its own. */
const HEARTBEAT_MS = 25_000;
/** The id of the one subscription to events on a socket; logs have ids of their own. */
const EVENTS_ID = "events";

/** Follows one deployment: from a snapshot, or from the cursor of `options.from`, through every cut of the connection. */
export function followDeployment(
  deps: FollowDeps,
  options: { from?: WatchState; onState: (state: WatchState, events: readonly Event[]) => void; signal: AbortSignal },
): Follower {
  const fold = { reduce: reduceFrame, lose: loseConnection, cursorOf: (state: WatchState) => state.cursor };
  return followStream(deps, { ...fold, initial: options.from ?? initialWatch() }, options);
}

/** Follows any stream. `onState` gets the state after each frame of it, with the events that the frame brought. */
export function followStream<S>(
  deps: FollowDeps,
  fold: Fold<S>,
  { onState, signal }: { onState: (state: S, events: readonly Event[]) => void; signal: AbortSignal },
): Follower {
  const logs = new Map<string, FollowedLog>();
  let logCount = 0;
  let state = fold.initial;
  let send: ((frame: ClientFrame) => void) | null = null;

  const connected: Handlers = {
    onWelcome(sender) {
      send = sender;
      const since = fold.cursorOf(state);
      send({ op: "subscribe", id: EVENTS_ID, ...(since === null ? {} : { since }) });
      for (const log of logs.values()) send(log.request());
    },
    onFrame(frame) {
      if (frame.op === "welcome" || frame.op === "mark" || frame.id === null) return null;
      if (frame.id !== EVENTS_ID) {
        if (logs.get(frame.id)?.take(frame) === "over") logs.delete(frame.id);
        return null;
      }
      if (frame.op === "error") return refusedBy(frame.problem);
      state = fold.reduce(state, frame);
      onState(state, frame.op === "events" ? frame.events : []);
      return null;
    },
  };

  const run = async (): Promise<FollowEnd> => {
    for (let failures = 0; !signal.aborted;) {
      const { end, wasLive } = await connectOnce(deps, connected, signal);
      send = null;
      if (end !== null) return end;
      if (signal.aborted) break;
      state = fold.lose(state);
      onState(state, []);
      failures = wasLive ? 1 : failures + 1;
      await deps.wait(deps.random() * Math.min(RECONNECT_MAX_MS, RECONNECT_MIN_MS * 2 ** (failures - 1)), signal);
    }
    return { ended: "aborted" };
  };

  return {
    log(runId, sink, from) {
      const id = `log-${(logCount += 1)}`;
      const log = followLog(id, runId, sink, from ?? { offset: 0 });
      logs.set(id, log);
      send?.(log.request());
      return () => {
        if (logs.delete(id)) send?.({ op: "unsubscribe", id });
      };
    },
    done: run(),
  };
}

/**
 * Opens the stream of a deployment (or of the namespace, without `deployment`) with a single-use ticket, as browsers must: a bad token
 * is answered with a problem that way, where a refused handshake would tell a WebSocket nothing.
 */
export function streamOpener(
  client: ClientDeps,
  WebSocket: new (url: string, protocols: string[]) => SocketLike,
  of: { ns: string; deployment?: string },
): FollowDeps["open"] {
  const path = pathOf(of.deployment === undefined ? streamNamespace : streamDeployment, of);
  return async () => {
    const answer = await call(client, createTicket, { params: { ns: of.ns } });
    if (!answer.ok) return { problem: answer.problem };
    const url = client.baseUrl.replace(/^http/, "ws") + path;
    return new WebSocket(url, [STREAM_SUBPROTOCOL, `ticket.${answer.answer.body.ticket}`]);
  };
}

/** Waits, or less when the signal aborts; the `wait` of everybody but tests. */
export function waitMs(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const finish = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", finish);
      resolve();
    };
    const timer = setTimeout(finish, ms);
    signal.addEventListener("abort", finish);
    if (signal.aborted) finish();
  });
}

type Handlers = {
  onWelcome: (send: (frame: ClientFrame) => void) => void;
  /** An end when the frame says that it makes no sense to go on. */
  onFrame: (frame: ServerFrame) => FollowEnd | null;
};

/** One connection, from opening to its loss. `wasLive` says that the subscription got as far as its bookmark. */
async function connectOnce(
  deps: FollowDeps,
  handlers: Handlers,
  signal: AbortSignal,
): Promise<{ end: FollowEnd | null; wasLive: boolean }> {
  const opened = await deps.open().catch(() => null);
  if (opened === null) return { end: null, wasLive: false };
  if ("problem" in opened) return { end: canRetry(opened.problem) ? null : refusedBy(opened.problem), wasLive: false };
  const socket = opened;
  const { promise: closed, resolve: leave } = Promise.withResolvers<FollowEnd | null>();
  const over = new AbortController();
  let heard = false;
  let wasLive = false;
  let heartbeatMs = HEARTBEAT_MS;
  const abort = (): void => leave({ ended: "aborted" });

  socket.addEventListener("message", ({ data }) => {
    if (over.signal.aborted) return;
    heard = true;
    const frame = readFrame(data);
    if (frame === "unknown") return;
    if (frame === "unreadable") return leave(UNREADABLE);
    if (frame.op === "welcome") {
      heartbeatMs = frame.heartbeatMs;
      return handlers.onWelcome((reply) => socket.send(JSON.stringify(reply)));
    }
    wasLive ||= frame.op === "live";
    const end = handlers.onFrame(frame);
    if (end !== null) return leave(end);
    const reply = replyTo(frame);
    if (reply !== null) socket.send(JSON.stringify(reply));
  });
  socket.addEventListener("close", ({ code, reason }) => leave(mayReconnect(code) ? null : closedBy(code, reason)));
  signal.addEventListener("abort", abort);
  if (signal.aborted) abort();

  const beat = async (): Promise<void> => {
    await deps.wait(heartbeatMs, over.signal);
    for (; heard && !over.signal.aborted; await deps.wait(heartbeatMs, over.signal)) {
      heard = false;
      // A broker that is there answers `pong`; a network that went away without a word does not.
      socket.send("ping");
    }
    leave(null);
  };
  void beat();

  const end = await closed;
  signal.removeEventListener("abort", abort);
  over.abort();
  // The socket's own farewell is not waited for: a network that is gone would not bring it.
  socket.close(1000);
  return { end, wasLive };
}

const KNOWN_FRAMES = new Set<unknown>(serverFrameSchema.options.map((option) => option.shape.op.value));
const UNREADABLE: FollowEnd = {
  ended: "refused",
  code: 4400,
  detail: "the broker sent a frame that this version cannot read",
  next: "Update this client, or check what stands between it and the broker.",
};

/** Frames of later versions are passed over (P18); one of ours that does not fit its schema is not, since events may be in it. */
function readFrame(data: unknown): ServerFrame | "unknown" | "unreadable" {
  if (data === "pong") return "unknown";
  if (typeof data !== "string") return "unreadable";
  let value: unknown;
  try {
    value = JSON.parse(data);
  } catch {
    return "unreadable";
  }
  if (typeof value !== "object" || value === null || !("op" in value)) return "unreadable";
  if (!KNOWN_FRAMES.has(value.op)) return "unknown";
  const parsed = serverFrameSchema.safeParse(value);
  return parsed.success ? parsed.data : "unreadable";
}

function canRetry(problem: Problem): boolean {
  return problem.status >= 500 || problem.status === 429 || problem.status === 408;
}

function refusedBy(problem: Problem): FollowEnd {
  return { ended: "refused", code: problem.status, detail: problem.detail, next: problem.next };
}

function closedBy(code: number, reason: string): FollowEnd {
  const entry = Object.values(ERRORS).find((one) => "closeCode" in one && one.closeCode === code);
  const next = entry?.next ?? "Update this client, or check the broker's version.";
  return {
    ended: "refused",
    code,
    detail: reason === "" ? (entry?.title ?? "the broker closed the stream") : reason,
    next,
  };
}
