import type { Refusal, RunId, RunView, ServerFrame } from "@plumule/protocol";
import type { LogSlice } from "../deployment/calls.ts";
import type { EventLog } from "./event-log.ts";
import type { Subscription } from "./subscription.ts";

/** A slice of a run's log with the state that its `end` frame carries. */
export type WatchedLog = LogSlice & { state: RunView["log"]["state"] };

/** Reads a run's log, at most `limit` bytes from `offset`; `limit` is at least 1. */
export type ReadLog = (run: RunId, offset: number, limit: number) => WatchedLog | Refusal;

/** Where frames come from. */
export type FeedDeps = {
  log: EventLog;
  /** The state that a subscription starts from, as of `log.head()`. */
  snapshot: () => unknown;
  /** Null for an object that has no logs. */
  readLog: ReadLog | null;
};

/** One step of a subscription: frames in order, where it stands then (null: it has ended), and whether a next step would send more. */
export type FeedStep<S extends Subscription = Subscription> = { frames: string[]; next: S | null; more: boolean };

/** The text of a frame. */
export function encodeFrame(frame: ServerFrame): string {
  return JSON.stringify(frame);
}

/** An `events` frame around events that are JSON already, because many subscriptions share them. */
export function encodeEvents(id: string, cursor: string, eventsJson: string): string {
  return `{"op":"events","id":${JSON.stringify(id)},"cursor":"${cursor}","events":${eventsJson}}`;
}
