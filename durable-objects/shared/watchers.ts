import type { Event, Refusal, RunId, RunView } from "@plumule/protocol";
import type { LogSlice } from "../deployment/calls.ts";
import type { EventLog } from "./event-log.ts";

/** A slice of a run's log with the state that its `end` frame carries. */
export type WatchedLog = LogSlice & { state: RunView["log"]["state"] };

/** What the watchers of an object need of it. */
export type WatchersDeps = {
  ctx: Pick<DurableObjectState, "acceptWebSocket" | "getWebSockets" | "setWebSocketAutoResponse" | "waitUntil">;
  log: EventLog;
  /** The state that a subscription starts from, as of `log.head()`. */
  snapshot: () => unknown;
  /** Bytes of a run's log; null for an object that has no logs. */
  readLog: ((run: RunId, offset: number, limit: number) => WatchedLog | Refusal) | null;
};

/** The hibernating sockets of one object. The class forwards its socket events here, and tells what was committed. */
export type Watchers = {
  /** Answers a WebSocket upgrade. */
  accept(request: Request): Response;
  /** `webSocketMessage`. Never throws. */
  message(ws: WebSocket, raw: string | ArrayBuffer): void;
  /** `webSocketClose` and `webSocketError`. */
  closed(ws: WebSocket): void;
  /** Call it after the commit, with what `append` returned. Never throws. */
  published(events: readonly Event[]): void;
  /** Call it after log bytes were committed, or the log was completed. Never throws. */
  logGrew(run: RunId): void;
};

/** Serves the watchers of an object; made in its constructor, after its migrations. */
export declare function createWatchers(deps: WatchersDeps): Watchers;
