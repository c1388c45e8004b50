import { parseBase64, utf8 } from "./bytes.ts";
import type { Problem } from "./errors.ts";
import type { RunId } from "./ids.ts";
import type { ClientFrame, ServerFrame } from "./stream.ts";

/** Where the bytes of a log go. Bytes come in order and once; what was not sent because the reader was slow is told by `onSkip`. */
export type LogSink = {
  onBytes: (offset: number, bytes: Uint8Array) => void;
  onSkip?: (from: number, to: number) => void;
  /** The log is complete: its length and signed hash, or null where nothing was signed. */
  onEnd?: (end: { bytes: number; sha256: string | null; state: string }) => void;
  /** The log cannot be read; nothing more comes. */
  onRefused?: (problem: Problem) => void;
};

/** A log that is followed: it knows which byte comes next, so that it can be asked for on another socket. */
export type FollowedLog = { request: () => ClientFrame; take: (frame: ServerFrame) => "more" | "over" };

/** Follows a run's log under a subscription id that is its own on every socket. */
export function followLog(
  id: string,
  run: RunId,
  sink: LogSink,
  from: { offset: number } | { tail: number },
): FollowedLog {
  let start = from;
  const skipTo = (to: number): void => {
    if ("offset" in start && start.offset < to) sink.onSkip?.(start.offset, to);
    start = { offset: to };
  };
  return {
    request: () => ({ op: "log", id, run, ...start }),
    take(frame) {
      if (frame.op === "chunk") {
        const bytes = frame.text === undefined ? parseBase64(frame.base64 ?? "") : utf8(frame.text);
        if (bytes === null) return "more";
        const known = "offset" in start ? Math.max(0, start.offset - frame.offset) : 0;
        if (known < bytes.length) {
          skipTo(frame.offset + known);
          sink.onBytes(frame.offset + known, bytes.subarray(known));
          start = { offset: frame.offset + bytes.length };
        }
        return "more";
      }
      if (frame.op === "skip") skipTo(frame.to);
      if (frame.op === "end") sink.onEnd?.({ bytes: frame.bytes, sha256: frame.sha256, state: frame.state });
      if (frame.op === "error") sink.onRefused?.(frame.problem);
      return frame.op === "end" || frame.op === "error" ? "over" : "more";
    },
  };
}
