import { CLOSE_CODES, isRefusal, LIMITS, PROTOCOL_VERSION, problemOf, type Event, type RunId } from "@plumule/protocol";
import { createCatchUp } from "./catch-up.ts";
import { readClientFrame } from "./client-frame.ts";
import { cursorAt } from "./cursor.ts";
import type { EventLog } from "./event-log.ts";
import {
  encodeFrame,
  eventsFrame,
  isNext,
  mustTell,
  stepEvents,
  stepLog,
  type FeedDeps,
  type FeedStep,
} from "./feed.ts";
import { refuseHandshake, switchProtocols, turnAway } from "./handshake.ts";
import { createSockets, type SocketHost, type Sockets } from "./sockets.ts";
import { filterKey, newSession, place, wants, type EventsSubscription, type Subscription } from "./subscription.ts";
import { obey } from "./obey.ts";

/** What the watchers of an object need of it. */
export type WatchersDeps = FeedDeps & { ctx: SocketHost };

/** The hibernating sockets of one object. The class forwards its socket events here, and tells what was committed. */
export type Watchers = {
  /** Answers a WebSocket upgrade; the edge has authenticated the caller. */
  accept(request: Request): Response;
  /** `webSocketMessage`. Never throws. */
  message(ws: WebSocket, raw: string | ArrayBuffer): void;
  /** `webSocketClose` and `webSocketError`. */
  closed(ws: WebSocket): void;
  /** Call it after the commit, with what `append` returned. At most one frame per subscription. Never throws. */
  published(events: readonly Event[]): void;
  /** Call it after log bytes were committed, or the log was completed. Never throws. */
  logGrew(run: RunId): void;
};

/** How often a client should say `ping`, ms: proxies cut connections that are silent for 30 s. */
const HEARTBEAT_MS = 25_000;

/**
 * Serves the watchers of an object; made in its constructor, after its migrations. Where each subscription stands is in its socket's
 * attachment and nowhere else, so that hibernation loses nothing. What a subscription has not got yet comes from the event log, so that a
 * missed call of `published` delays events but cannot lose them (P7).
 */
export function createWatchers(deps: WatchersDeps): Watchers {
  const { ctx, log } = deps;
  const sockets = createSockets(ctx);
  const catchUp = createCatchUp({
    turn: (ws) => sendNext(ws, sockets, deps),
    isFull: (ws) => sockets.isFull(ws),
    stalled: (ws) => sockets.close(ws, CLOSE_CODES.tooSlow, "too slow"),
    waitUntil: (work) => ctx.waitUntil(work),
  });
  /** Serves every socket that has a subscription like this. */
  const serveWhere = (test: (subscription: Subscription) => boolean): void => {
    for (const ws of sockets.open())
      sockets.guarded(ws, ({ subscriptions }) => {
        if (subscriptions.some(test)) catchUp.serve(ws);
      });
  };

  ctx.setWebSocketAutoResponse(new WebSocketRequestResponsePair("ping", "pong"));
  // A replay that an evicted instance had begun goes on at once, not with the next event.
  serveWhere((subscription) => subscription.kind === "log" || !subscription.live);

  return {
    accept(request) {
      const refused = refuseHandshake(request);
      if (refused !== null) return refused;
      if (!hasFreeSocket(sockets)) return turnAway(CLOSE_CODES.tooMany, `${LIMITS.sockets} sockets are open here`);
      const { 0: client, 1: server } = new WebSocketPair();
      sockets.add(server, newSession(Date.now()));
      const { subscriptions, frameBytes, logCreditBytes } = LIMITS;
      const limits = { subscriptions, frameBytes, logCreditBytes };
      server.send(encodeFrame({ op: "welcome", protocol: PROTOCOL_VERSION, heartbeatMs: HEARTBEAT_MS, limits }));
      return switchProtocols(client);
    },

    message(ws, raw) {
      if (heed(ws, raw, sockets, deps)) catchUp.serve(ws);
    },

    closed(ws) {
      catchUp.leave(ws);
      sockets.gone();
    },

    published(events) {
      for (const ws of pass(events, sockets, log)) catchUp.serve(ws);
    },

    logGrew(run) {
      serveWhere((subscription) => subscription.kind === "log" && subscription.run === run);
    },
  };
}

/** Does what a message asks for, or says why not. True when the socket may now be owed something. */
function heed(ws: WebSocket, raw: string | ArrayBuffer, sockets: Sockets, deps: FeedDeps): boolean {
  let changed = false;
  sockets.guarded(ws, (session) => {
    const read = readClientFrame(raw);
    if ("closeCode" in read) return sockets.close(ws, read.closeCode, read.reason);
    if ("refusal" in read) {
      const badFrames = session.badFrames + 1;
      sockets.save(ws, { ...session, badFrames });
      ws.send(encodeFrame({ op: "error", id: read.id, problem: problemOf(read.refusal) }));
      if (badFrames >= LIMITS.badFrames) sockets.close(ws, CLOSE_CODES.badFrame, `${badFrames} frames were not valid`);
      return;
    }
    const obeyed = obey(session, read.frame, deps);
    if (isRefusal(obeyed)) return ws.send(encodeFrame({ op: "error", id: read.frame.id, problem: problemOf(obeyed) }));
    sockets.save(ws, obeyed.session);
    for (const text of obeyed.frames) ws.send(text);
    changed = true;
  });
  return changed;
}

/** Passes new events on to every subscription that expects exactly these. Returns the sockets that lag and are served from the log. */
function pass(events: readonly Event[], sockets: Sockets, log: EventLog): Set<WebSocket> {
  const lagging = new Set<WebSocket>();
  const newest = events.at(-1);
  if (newest === undefined) return lagging;
  const last = Number(newest.sequence);
  const cursor = cursorAt(log, last);
  const batchFor = batches(events);
  for (const ws of sockets.open())
    sockets.guarded(ws, (session) => {
      let next = session;
      for (const subscription of session.subscriptions) {
        if (subscription.kind === "log" || subscription.sequence >= last) continue;
        if (!isNext(subscription, events)) {
          lagging.add(ws);
          continue;
        }
        const batch = batchFor(subscription);
        const tells = mustTell(subscription, last, batch.count);
        if (tells && sockets.isOverfull(ws)) return sockets.close(ws, CLOSE_CODES.tooSlow, "too slow");
        if (tells) ws.send(eventsFrame(subscription.id, cursor, batch.json));
        const told = tells ? last : subscription.told;
        next = place(next, subscription.id, { ...subscription, sequence: last, told });
      }
      if (next !== session) sockets.save(ws, next);
    });
  return lagging;
}

/** One piece for each subscription of a socket, as far as its queue has room. True when there is more. */
function sendNext(ws: WebSocket, sockets: Sockets, deps: FeedDeps): boolean {
  let more = false;
  sockets.guarded(ws, (session) => {
    let next = session;
    for (const subscription of session.subscriptions) {
      if (sockets.isFull(ws)) {
        more = true;
        break;
      }
      const step = stepOf(subscription, deps);
      for (const text of step.frames) ws.send(text);
      next = place(next, subscription.id, step.next);
      more ||= step.more;
    }
    sockets.save(ws, next);
  });
  return more;
}

function stepOf(subscription: Subscription, deps: FeedDeps): FeedStep {
  if (subscription.kind === "events") return stepEvents(subscription, deps);
  return deps.readLog === null ? { frames: [], next: null, more: false } : stepLog(subscription, deps.readLog);
}

/** The events that each filter lets through, as JSON, made once per filter however many sockets share it. */
function batches(events: readonly Event[]): (subscription: EventsSubscription) => { count: number; json: string } {
  const made = new Map<string, { count: number; json: string }>();
  return (subscription) => {
    const key = filterKey(subscription);
    let batch = made.get(key);
    if (batch === undefined) {
      const wanted = events.filter((event) => wants(subscription, event));
      batch = { count: wanted.length, json: JSON.stringify(wanted) };
      made.set(key, batch);
    }
    return batch;
  };
}

/** Sockets that never subscribed make room. They are looked for only here: a timer for each would keep the object from hibernating. */
function hasFreeSocket(sockets: Sockets): boolean {
  const open = sockets.open();
  if (open.length < LIMITS.sockets) return true;
  const silentSince = Date.now() - LIMITS.firstFrameMs;
  let freed = false;
  for (const ws of open)
    sockets.guarded(ws, ({ subscriptions, connectedAt }) => {
      if (subscriptions.length > 0 || connectedAt > silentSince) return;
      freed = true;
      sockets.close(ws, CLOSE_CODES.noFirstFrame, "nothing was subscribed in time");
    });
  return freed;
}
