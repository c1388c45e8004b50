import {
  isRefusal,
  LIMITS,
  parseUtf8,
  problemOf,
  refuse,
  toBase64,
  type ClientFrame,
  type Event,
  type Refusal,
  type RunId,
  type RunView,
  type ServerFrame,
} from "@plumule/protocol";
import type { LogSlice } from "../deployment/calls.ts";
import { cursorAt, followCursor } from "./cursor.ts";
import type { EventLog } from "./event-log.ts";
import { wants, type EventsSubscription, type LogSubscription, type Subscription } from "./subscription.ts";

/** A slice of a run's log with the state that its `end` frame carries. */
export type WatchedLog = LogSlice & { state: RunView["log"]["state"] };

/** Where frames come from. */
export type FeedDeps = {
  log: EventLog;
  /** The state that a subscription starts from, as of `log.head()`. */
  snapshot: () => unknown;
  /** Bytes of a run's log, at most `limit` from `offset`; null for an object that has no logs. */
  readLog: ((run: RunId, offset: number, limit: number) => WatchedLog | Refusal) | null;
};

/** One step of a subscription: frames to send in order, where it stands then (null: it has ended), and whether a next step would send more. */
export type FeedStep<S extends Subscription = Subscription> = { frames: string[]; next: S | null; more: boolean };

type Opened<S extends Subscription> = { frames: string[]; next: S };

/** Bytes that tell where a character begins; UTF-8 has at most three continuation bytes in a row. */
const PROBE_BYTES = 4;

/** Opens a subscription to events: after its cursor, or from a snapshot when it has none or it cannot be followed. */
export function openEvents(
  frame: Extract<ClientFrame, { op: "subscribe" }>,
  deps: FeedDeps,
): Opened<EventsSubscription> {
  const filter = { types: frame.types ?? null, jobs: frame.jobs ?? null };
  if (frame.since === undefined) return fromSnapshot({ id: frame.id, ...filter }, deps, []);
  const from = followCursor(frame.since, deps.log);
  if ("lost" in from)
    return fromSnapshot({ id: frame.id, ...filter }, deps, [
      encodeFrame({ op: "reset", id: frame.id, reason: from.lost }),
    ]);
  return {
    frames: [],
    next: {
      kind: "events",
      id: frame.id,
      sequence: from.after,
      told: from.after,
      live: false,
      recovered: true,
      replayed: 0,
      ...filter,
    },
  };
}

function fromSnapshot(
  about: Pick<EventsSubscription, "id" | "types" | "jobs">,
  { log, snapshot }: FeedDeps,
  before: string[],
): Opened<EventsSubscription> {
  const head = log.head();
  const first = encodeFrame({ op: "snapshot", id: about.id, cursor: cursorAt(log, head), state: snapshot() });
  return {
    frames: [...before, first],
    next: { kind: "events", ...about, sequence: head, told: head, live: false, recovered: false, replayed: 0 },
  };
}

/** Sends the next page of the log, and the bookmark when it was the last one. Starts over when the log forgot what comes next. */
export function stepEvents(subscription: EventsSubscription, deps: FeedDeps): FeedStep<EventsSubscription> {
  const { log } = deps;
  const { id } = subscription;
  if (subscription.sequence < log.oldest() - 1) {
    const { frames, next } = fromSnapshot(subscription, deps, [
      encodeFrame({ op: "reset", id, reason: "cursor-expired" }),
    ]);
    return { frames, next, more: true };
  }
  const { events, more } = log.page(subscription.sequence, LIMITS.eventsPage);
  const wanted = events.filter((event) => wants(subscription, event));
  const sequence = Number(events.at(-1)?.sequence ?? subscription.sequence);
  const cursor = cursorAt(log, sequence);
  const replayed = subscription.replayed + (subscription.live ? 0 : wanted.length);
  const frames: string[] = [];
  const speaks = mustTell(subscription, sequence, wanted.length);
  if (speaks) frames.push(eventsFrame(id, cursor, JSON.stringify(wanted)));
  const arrives = !more && !subscription.live;
  if (arrives) frames.push(encodeFrame({ op: "live", id, cursor, recovered: subscription.recovered, replayed }));
  const next = {
    ...subscription,
    sequence,
    told: speaks || arrives ? sequence : subscription.told,
    live: subscription.live || arrives,
    replayed,
  };
  return { frames, next, more };
}

/**
 * True when a subscription is owed a frame for events up to `sequence`: some of them are wanted, or so many were left out that its cursor
 * would fall more than a page behind and might expire.
 */
export function mustTell(subscription: EventsSubscription, sequence: number, wantedCount: number): boolean {
  return wantedCount > 0 || sequence - subscription.told >= LIMITS.eventsPage;
}

/** An `events` frame around events that are JSON already, because many subscriptions share them. */
export function eventsFrame(id: string, cursor: string, eventsJson: string): string {
  return `{"op":"events","id":${JSON.stringify(id)},"cursor":"${cursor}","events":${eventsJson}}`;
}

/** The text of any other frame. */
export function encodeFrame(frame: Exclude<ServerFrame, { op: "events" }>): string {
  return JSON.stringify(frame);
}

/** Opens a subscription to a run's log, at `offset` or at the first whole character of its last `tail` bytes. */
export function openLog(
  frame: Extract<ClientFrame, { op: "log" }>,
  { readLog }: FeedDeps,
): Opened<LogSubscription> | Refusal {
  if (readLog === null) return refuse("not-found", "this stream has no logs; they are on their deployment's stream");
  if (frame.offset !== undefined && frame.tail !== undefined)
    return refuse("invalid-body", "`offset` and `tail` exclude each other", {
      errors: [{ pointer: "/tail", detail: "leave it out, or `offset`" }],
    });
  const start = readLog(frame.run, 0, PROBE_BYTES);
  if (isRefusal(start)) return start;
  if (frame.offset !== undefined && frame.offset > start.size)
    return refuse("log-gap", `the log has ${start.size} bytes`);
  const offset =
    frame.tail === undefined
      ? (frame.offset ?? 0)
      : characterAt(readLog, frame.run, Math.max(0, start.size - frame.tail));
  return {
    frames: [],
    next: { kind: "log", id: frame.id, run: frame.run, next: offset, acked: offset, kept: start.size },
  };
}

/** Sends the next piece of a log within the client's credit; `end` after the last one; `skip` when the client fell too far behind. */
export function stepLog(
  subscription: LogSubscription,
  readLog: NonNullable<FeedDeps["readLog"]>,
): FeedStep<LogSubscription> {
  const { id, run, next: offset, acked } = subscription;
  const credit = LIMITS.logCreditBytes - (offset - acked);
  // Without credit one byte is asked for: an empty rest with `complete` still has to end the subscription.
  const slice = readLog(run, offset, Math.min(Math.max(credit, 1), LIMITS.logChunkBytes));
  if (isRefusal(slice))
    return { frames: [encodeFrame({ op: "error", id, problem: problemOf(slice) })], next: null, more: false };
  if (offset === slice.size && slice.complete) {
    return {
      frames: [encodeFrame({ op: "end", id, bytes: slice.size, sha256: slice.sha256, state: slice.state })],
      next: null,
      more: false,
    };
  }
  if (credit <= 0) return { frames: [], next: subscription, more: false };
  if (offset >= subscription.kept && slice.size - offset > LIMITS.logCreditBytes) {
    const to = characterAt(readLog, run, slice.size - LIMITS.logChunkBytes);
    return {
      frames: [encodeFrame({ op: "skip", id, from: offset, to })],
      next: { ...subscription, next: to, acked: acked + (to - offset) },
      more: true,
    };
  }
  const isLast = offset + slice.bytes.length === slice.size && slice.complete;
  const bytes = isLast ? slice.bytes : slice.bytes.subarray(0, wholeCharacters(slice.bytes));
  if (bytes.length === 0) return { frames: [], next: subscription, more: false };
  const text = parseUtf8(bytes);
  const body = text === null ? { base64: toBase64(bytes) } : { text };
  const next = { ...subscription, next: offset + bytes.length };
  return {
    frames: [encodeFrame({ op: "chunk", id, offset, bytes: bytes.length, ...body })],
    next,
    more: isLast || (next.next < slice.size && credit > bytes.length),
  };
}

/** The first place at or after `offset` that is not inside a character of UTF-8. */
function characterAt(readLog: NonNullable<FeedDeps["readLog"]>, run: RunId, offset: number): number {
  const slice = readLog(run, offset, PROBE_BYTES);
  if (isRefusal(slice)) return offset;
  const start = slice.bytes.findIndex((byte) => (byte & 0xc0) !== 0x80);
  return start === -1 ? offset : offset + start;
}

/** How many bytes are left when a character that is cut off at the end is left out. Bytes that are no UTF-8 are left as they are. */
export function wholeCharacters(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back += 1) {
    const byte = bytes[bytes.length - back] ?? 0;
    if ((byte & 0xc0) === 0x80) continue;
    const needs = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return needs > back ? bytes.length - back : bytes.length;
  }
  return bytes.length;
}

/** True when an event of this batch is what the subscription expects next; else it is served from the log. */
export function isNext(subscription: EventsSubscription, events: readonly Event[]): boolean {
  return subscription.live && subscription.sequence + 1 === Number(events[0]?.sequence);
}
