import {
  isRefusal,
  LIMITS,
  parseUtf8,
  problemOf,
  refuse,
  toBase64,
  type ClientFrame,
  type Refusal,
  type RunId,
} from "@plumule/protocol";
import { encodeFrame, type FeedStep, type ReadLog } from "./feed.ts";
import type { LogSubscription } from "./subscription.ts";

/** Bytes that tell where a character begins; UTF-8 has at most three continuation bytes in a row. */
const PROBE_BYTES = 4;

/** Opens a subscription to a run's log, at `offset` or at the first whole character of its last `tail` bytes. */
export function openLog(
  frame: Extract<ClientFrame, { op: "log" }>,
  readLog: ReadLog | null,
): LogSubscription | Refusal {
  if (readLog === null) return refuse("not-found", "this stream has no logs; they are on their deployment's stream");
  if (frame.offset !== undefined && frame.tail !== undefined)
    return refuse("invalid-body", "`offset` and `tail` exclude each other", {
      errors: [{ pointer: "/tail", detail: "leave out this or `offset`" }],
    });
  const start = readLog(frame.run, 0, PROBE_BYTES);
  if (isRefusal(start)) return start;
  if (frame.offset !== undefined && frame.offset > start.size)
    return refuse("log-gap", `the log has ${start.size} bytes`, { next: "Start at an offset within the log." });
  const offset =
    frame.tail === undefined
      ? (frame.offset ?? 0)
      : characterAt(readLog, frame.run, Math.max(0, start.size - frame.tail));
  return { kind: "log", id: frame.id, run: frame.run, next: offset, acked: offset, kept: start.size };
}

/**
 * Sends the next piece of a log, of at most `room` bytes and within the client's credit; `end` after the last one; `skip` when the client fell too
 * far behind what is written meanwhile.
 */
export function stepLog(subscription: LogSubscription, readLog: ReadLog, room: number): FeedStep<LogSubscription> {
  const { id, run, next: offset, acked, kept } = subscription;
  const credit = LIMITS.logCreditBytes - (offset - acked);
  // Without credit a byte is read all the same, as the end of the log needs none.
  const limit = Math.min(LIMITS.logChunkBytes, Math.max(credit, 1), Math.max(room, PROBE_BYTES));
  const slice = readLog(run, offset, limit);
  if (isRefusal(slice))
    return { frames: [encodeFrame({ op: "error", id, problem: problemOf(slice) })], next: null, more: false };
  const { size, complete, sha256, state } = slice;
  if (complete && offset === size)
    return { frames: [encodeFrame({ op: "end", id, bytes: size, sha256, state })], next: null, more: false };
  if (credit <= 0) return { frames: [], next: subscription, more: false };
  // What comes in one append outruns nobody who had everything before.
  if (offset >= kept && size - offset > LIMITS.logCreditBytes + LIMITS.logUnpackedBytes) {
    const to = characterAt(readLog, run, size - LIMITS.logChunkBytes);
    const frames = [encodeFrame({ op: "skip", id, from: offset, to })];
    return { frames, next: { ...subscription, next: to, acked: acked + (to - offset) }, more: true };
  }
  const closes = complete && offset + slice.bytes.length === size;
  const bytes = closes ? slice.bytes : slice.bytes.subarray(0, wholeCharacters(slice.bytes));
  if (bytes.length === 0) return { frames: [], next: subscription, more: false };
  const text = parseUtf8(bytes);
  const body = text === null ? { base64: toBase64(bytes) } : { text };
  const frames = [encodeFrame({ op: "chunk", id, offset, bytes: bytes.length, ...body })];
  const more = closes || (offset + bytes.length < size && credit > bytes.length);
  return { frames, next: { ...subscription, next: offset + bytes.length }, more };
}

/** The first place at or after `offset` that is not inside a character of UTF-8. */
function characterAt(readLog: ReadLog, run: RunId, offset: number): number {
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
