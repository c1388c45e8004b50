import { CLOSE_CODES, isRefusal, LIMITS, PROTOCOL_VERSION, problemOf, type Event, type RunId } from "@plumule/protocol";
import { createCatchUp } from "./catch-up.ts";
import { readClientFrame } from "./client-frame.ts";
import { cursorAt } from "./cursor.ts";
import type { EventLog } from "./event-log.ts";
import { expects, filterOnce, mustTell, stepEvents } from "./events-feed.ts";
import { encodeEvents, encodeFrame, type FeedDeps, type FeedStep } from "./feed.ts";
import { admissionOf, refuseHandshake, switchProtocols, turnAway } from "./handshake.ts";
import { stepLog } from "./log-feed.ts";
import { obey } from "./obey.ts";
import { createSockets, type SocketHost, type Sockets } from "./sockets.ts";
import { newSession, place, type Session, type Subscription } from "./subscription.ts";

/** What the watchers of an object need of it. */
export type WatchersDeps = FeedDeps & { ctx: SocketHost };

/** The hibernating sockets of one object. The class forwards its socket events here, and tells what was committed. */
export type Watchers = {
  /** Answers a WebSocket upgrade; the edge has authenticated the caller. */
  accept(request: Request): Response;
  /** `webSocketMessage`. Never throws. */
  message(ws: WebSocket, raw: string | ArrayBuffer): void;
  /** `webSocketClose`: answers the close, without which the client waits for seconds and sees an abnormal end (1006). Never throws. */
  closed(ws: WebSocket, code: number): void;
  /** `webSocketError`: nothing can be sent any more. */
  broken(): void;
  /** Call it after the commit, with what `append` returned. At most one frame per subscription. Never throws. */
  published(events: readonly Event[]): void;
  /** Call it after log bytes were committed, or the log was completed. Never throws. */
  logGrew(run: RunId): void;
  /** Closes the sockets of a caller whose right has ended. */
  end(actor: string): void;
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
  const catchUp = createCatchUp(
    (ws) => sendNext(ws, sockets, deps),
    (work) => ctx.waitUntil(work),
  );
  /** Serves every socket that has a subscription like this. */
  const serveWhere = (test: (subscription: Subscription) => boolean): void => {
    for (const ws of sockets.open())
      sockets.guarded(ws, ({ subscriptions }) => {
        if (subscriptions.some(test)) catchUp.serve(ws);
      });
  };

  ctx.setWebSocketAutoResponse(new WebSocketRequestResponsePair("ping", "pong"));
  // A replay that an evicted instance had begun goes on at once, not with the next event.
  serveWhere((subscription) => subscription.kind === "log" || subscription.phase !== "live");

  return {
    accept(request) {
      const refused = refuseHandshake(request);
      if (refused !== null) return refused;
      if (!hasFreeSocket(sockets)) return turnAway(CLOSE_CODES.tooMany, `${LIMITS.sockets} sockets are open here`);
      const { 0: client, 1: server } = new WebSocketPair();
      const { subscriptions, frameBytes, logCreditBytes } = LIMITS;
      const limits = { subscriptions, frameBytes, logCreditBytes };
      const welcome = encodeFrame({ op: "welcome", protocol: PROTOCOL_VERSION, heartbeatMs: HEARTBEAT_MS, limits });
      sockets.add(server, newSession(admissionOf(request), Date.now()), [welcome]);
      return switchProtocols(client);
    },

    message(ws, raw) {
      sockets.guarded(ws, (session) => heed(ws, session, raw, sockets, deps));
      catchUp.serve(ws);
    },

    closed(ws, code) {
      // Codes that a close frame cannot carry (no status, abnormal end) are answered as a normal end (RFC 6455, section 7.4).
      const answer = code === 1000 || (code >= 3000 && code <= 4999) ? code : CLOSE_CODES.normal;
      if (ws.readyState === WebSocket.CLOSING) ws.close(answer);
      sockets.gone();
    },

    broken() {
      sockets.gone();
    },

    published(events) {
      for (const ws of pass(events, sockets, log)) catchUp.serve(ws);
    },

    logGrew(run) {
      serveWhere((subscription) => subscription.kind === "log" && subscription.run === run);
    },

    end(actor) {
      for (const ws of sockets.open())
        sockets.guarded(ws, (session) => {
          if (session.actor === actor) ws.close(CLOSE_CODES.unauthenticated, "the credential was revoked");
        });
    },
  };
}

/** Does what a message asks for, or says why not. */
function heed(ws: WebSocket, session: Session, raw: string | ArrayBuffer, sockets: Sockets, deps: FeedDeps): void {
  const read = readClientFrame(raw);
  if ("closeCode" in read) return ws.close(read.closeCode, read.reason);
  if ("refusal" in read) {
    const badFrames = session.badFrames + 1;
    const error = encodeFrame({ op: "error", id: read.id, problem: problemOf(read.refusal) });
    sockets.put(ws, { ...session, badFrames }, [error]);
    if (badFrames >= LIMITS.badFrames) ws.close(CLOSE_CODES.badFrame, `${badFrames} frames were not valid`);
    return;
  }
  const answer = obey(session, read.frame, deps);
  if (!isRefusal(answer)) return sockets.put(ws, answer, []);
  // Nothing is sent to a client that does not read, not even errors: it could have them heaped up.
  if (sockets.room(ws, session) <= 0) return ws.close(CLOSE_CODES.tooSlow, "read what was sent first");
  const id = read.frame.op === "mark" ? null : read.frame.id;
  sockets.put(ws, session, [encodeFrame({ op: "error", id, problem: problemOf(answer) })]);
}

/** Passes new events on to every subscription that expects exactly these. Returns the sockets that lag and are served from the log. */
function pass(events: readonly Event[], sockets: Sockets, log: EventLog): Set<WebSocket> {
  const lagging = new Set<WebSocket>();
  const [first] = events;
  if (first === undefined) return lagging;
  const last = Number(first.sequence) + events.length - 1;
  const cursor = cursorAt(log, last);
  const filtered = filterOnce(events);
  for (const ws of sockets.open())
    sockets.guarded(ws, (session) => {
      const hasRoom = sockets.room(ws, session) > 0;
      const frames: string[] = [];
      let next = session;
      for (const subscription of session.subscriptions) {
        if (subscription.kind === "log" || subscription.sequence >= last) continue;
        if (!hasRoom || !expects(subscription, first)) {
          lagging.add(ws);
          continue;
        }
        const batch = filtered(subscription);
        const tells = mustTell(subscription, last, batch.count);
        if (tells) frames.push(encodeEvents(subscription.id, cursor, batch.json));
        next = place(next, subscription.id, {
          ...subscription,
          sequence: last,
          told: tells ? last : subscription.told,
        });
      }
      if (next !== session) sockets.put(ws, next, frames);
    });
  return lagging;
}

/** One piece for each subscription of a socket, as far as there is room. True when there is more and it can follow at once. */
function sendNext(ws: WebSocket, sockets: Sockets, deps: FeedDeps): boolean {
  let more = false;
  sockets.guarded(ws, (session) => {
    let room = sockets.room(ws, session);
    let next = session;
    const frames: string[] = [];
    for (const subscription of session.subscriptions) {
      if (room <= 0) break;
      const step = stepOf(subscription, deps, room);
      for (const frame of step.frames) room -= frame.length;
      frames.push(...step.frames);
      next = place(next, subscription.id, step.next);
      more ||= step.more;
    }
    if (next !== session) sockets.put(ws, next, frames);
    more &&= room > 0;
  });
  return more;
}

function stepOf(subscription: Subscription, deps: FeedDeps, room: number): FeedStep {
  if (subscription.kind === "events") return stepEvents(subscription, deps, room);
  return deps.readLog === null ? { frames: [], next: null, more: false } : stepLog(subscription, deps.readLog, room);
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
      ws.close(CLOSE_CODES.noFirstFrame, "nothing was subscribed in time");
    });
  return freed;
}
