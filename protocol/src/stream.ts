import * as z from "zod";
import { eventSchema } from "./events.ts";
import { problemSchema } from "./errors.ts";
import { jobIdSchema, runIdSchema } from "./ids.ts";
import { LIMITS } from "./limits.ts";

const subscriptionId = z
  .string()
  .regex(/^[A-Za-z0-9._-]{1,32}$/, "1 to 32 of A-Z, a-z, 0-9, dot, underscore and hyphen");

/** An exact type or a whole family of types. Types that this broker does not know are allowed: they match nothing yet. */
const typeFilter = z
  .string()
  .regex(/^[a-z]{1,30}\.(?:[a-z]{1,30}|\*)$/, "an event type such as `job.queued`, or `job.*`");

/**
 * Frames from a watcher. `subscribe` follows the events of the object that the socket belongs to, from `since` or from a
 * snapshot; `types` filters by exact type or by prefix (`job.*`), and `jobs` by job. A filtered subscription gets an `events` frame
 * without events whenever a page's worth of them (500) was left out, so that its cursor is never further behind than that. `log` follows a run's bytes from `offset`, or from `tail` bytes before the end.
 * `ack` gives credit to a log: everything before `offset` has been read. `mark` sends a mark back: everything before it has been read. A bare `ping` is answered `pong` without waking the object.
 */
export const clientFrameSchema = z
  .discriminatedUnion("op", [
    z.strictObject({
      op: z.literal("subscribe"),
      id: subscriptionId,
      since: z.string().max(40).optional(),
      types: z.array(typeFilter).max(32).optional(),
      jobs: z.array(jobIdSchema).max(32).optional(),
    }),
    z.strictObject({
      op: z.literal("log"),
      id: subscriptionId,
      run: runIdSchema,
      offset: z.int().min(0).max(LIMITS.logBytes).optional(),
      tail: z.int().min(0).max(LIMITS.logBytes).optional(),
    }),
    z.strictObject({ op: z.literal("ack"), id: subscriptionId, offset: z.int().min(0).max(LIMITS.logBytes) }),
    z.strictObject({ op: z.literal("unsubscribe"), id: subscriptionId }),
    z.strictObject({ op: z.literal("mark"), number: z.int().min(0) }),
  ])
  .meta({ id: "ClientFrame" });
export type ClientFrame = z.output<typeof clientFrameSchema>;

export const RESET_REASONS = ["cursor-expired", "cursor-unknown", "epoch-changed"] as const;

/**
 * Frames to a watcher. Order of a subscription: `snapshot` (without cursor, or after `reset`) → `events` (replay pages) → `live`
 * (caught up: `recovered` says that nothing was missed since the cursor) → `events` as they happen. A `log`
 * subscription gets `chunk`s (`text` when the bytes are UTF-8, else `base64`), a `skip` over bytes that were not sent because the
 * reader was slow (they can be read over HTTP), and `end` with the signed length and hash. A `mark` is sent back as it is when what came
 * before it has been handled: at most 1 MiB is sent unconfirmed, then nothing until a mark returns, and a client that
 * returns none is closed with 1013. State events are paged that way, never skipped.
 */
export const serverFrameSchema = z
  .discriminatedUnion("op", [
    z.looseObject({
      op: z.literal("welcome"),
      protocol: z.int(),
      heartbeatMs: z.int(),
      limits: z.looseObject({ subscriptions: z.int(), frameBytes: z.int(), logCreditBytes: z.int() }),
    }),
    z.looseObject({ op: z.literal("snapshot"), id: z.string(), cursor: z.string(), state: z.unknown() }),
    z.looseObject({ op: z.literal("events"), id: z.string(), cursor: z.string(), events: z.array(eventSchema) }),
    z.looseObject({
      op: z.literal("live"),
      id: z.string(),
      cursor: z.string(),
      recovered: z.boolean(),
      replayed: z.int(),
    }),
    z.looseObject({ op: z.literal("reset"), id: z.string(), reason: z.enum(RESET_REASONS) }),
    z.looseObject({
      op: z.literal("chunk"),
      id: z.string(),
      offset: z.int(),
      bytes: z.int(),
      text: z.string().optional(),
      base64: z.string().optional(),
    }),
    z.looseObject({ op: z.literal("skip"), id: z.string(), from: z.int(), to: z.int() }),
    z.looseObject({
      op: z.literal("end"),
      id: z.string(),
      bytes: z.int(),
      sha256: z.string().nullable(),
      state: z.string(),
    }),
    z.looseObject({ op: z.literal("mark"), number: z.int() }),
    z.looseObject({ op: z.literal("error"), id: z.string().nullable(), problem: problemSchema }),
  ])
  .meta({ id: "ServerFrame" });
export type ServerFrame = z.output<typeof serverFrameSchema>;

/** What a client sends back when it has handled a frame; null for nothing. A client that sends all of these keeps its stream flowing. */
export function replyTo(frame: ServerFrame): ClientFrame | null {
  if (frame.op === "mark") return { op: "mark", number: frame.number };
  if (frame.op === "chunk") return { op: "ack", id: frame.id, offset: frame.offset + frame.bytes };
  return null;
}

/** Close codes of a stream and what a client does: reconnect (with its cursors), or stop because it would fail again. */
export const CLOSE_CODES = {
  normal: 1000,
  goingAway: 1001,
  internal: 1011,
  restart: 1012,
  tooSlow: 1013,
  badFrame: 4400,
  unauthenticated: 4401,
  forbidden: 4403,
  notFound: 4404,
  noFirstFrame: 4408,
  frameTooLarge: 4413,
  wrongSubprotocol: 4426,
  tooMany: 4429,
} as const;

/** True when connecting again with the same request can succeed. */
export function mayReconnect(closeCode: number): boolean {
  return closeCode < 4000 || closeCode === CLOSE_CODES.noFirstFrame || closeCode === CLOSE_CODES.tooMany;
}
