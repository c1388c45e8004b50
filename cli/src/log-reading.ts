import { StringDecoder } from "node:string_decoder";
import { getLog, LIMITS, type RunId } from "@plumule/protocol";
import type { Connection } from "./connection.ts";
import { type Failure, isFailure } from "./failure.ts";
import type { Terminal } from "./print.ts";
import { createTextFilter } from "./terminal-text.ts";

/** Bytes of a log from an offset, with its size so far. */
export type LogPage = { bytes: Uint8Array; size: number; complete: boolean };

/** Reads a page of a run's log. */
export async function readLogPage(
  connection: Connection,
  run: RunId,
  offset: number,
  limit: number = LIMITS.logReadBytes,
): Promise<LogPage | Failure> {
  const answer = await connection.ask(getLog, { params: { ns: connection.ns, run }, query: { offset, limit } });
  if (isFailure(answer)) return answer;
  const bytes = new Uint8Array(await answer.response.arrayBuffer());
  const size = Number(answer.headers.get("plumule-log-size") ?? offset + bytes.length);
  return { bytes, size, complete: answer.headers.get("plumule-log-complete") === "true" };
}

/** Reads a log from an offset to what is its end now. Returns where it stopped. */
export async function readLog(
  connection: Connection,
  run: RunId,
  offset: number,
  onBytes: (offset: number, bytes: Uint8Array) => void,
): Promise<number | Failure> {
  for (let at = offset; ;) {
    const page = await readLogPage(connection, run, at);
    if (isFailure(page)) return page;
    if (page.bytes.length > 0) onBytes(at, page.bytes);
    at += page.bytes.length;
    if (at >= page.size || page.bytes.length === 0) return at;
  }
}

/** Bytes that are read at a time when the last lines are looked for. */
const BACKWARDS_BYTES = 64 * 1024;

/** Where the last `count` lines of a log begin. */
export async function offsetOfLastLines(connection: Connection, run: RunId, count: number): Promise<number | Failure> {
  const start = await readLogPage(connection, run, 0, 1);
  if (isFailure(start)) return start;
  let missing = count;
  for (let end = start.size; end > 0;) {
    const from = Math.max(0, end - BACKWARDS_BYTES);
    const page = await readLogPage(connection, run, from, end - from);
    if (isFailure(page)) return page;
    // The line feed at the very end closes the last line and does not begin another one.
    for (let index = page.bytes.length - (end === start.size ? 2 : 1); index >= 0; index -= 1) {
      if (page.bytes[index] === 0x0a && (missing -= 1) === 0) return from + index + 1;
    }
    end = from;
  }
  return 0;
}

/** Prints a log: bytes as they are, JSON with offsets, or text in which nothing can play tricks on the screen. */
export function createLogPrinter(
  terminal: Terminal,
  { raw, run }: { raw: boolean; run: RunId },
): { push: (offset: number, bytes: Uint8Array) => void; flush: () => void } {
  const decoder = new StringDecoder("utf8");
  const filter = createTextFilter({ colours: terminal.colours });
  let last = "\n";
  const write = (text: string): void => {
    if (text === "") return;
    last = text.at(-1) ?? last;
    terminal.write(text);
  };
  return {
    push(offset, bytes) {
      if (terminal.json) return terminal.data({ run, offset, text: decoder.write(Buffer.from(bytes)) });
      if (raw) return terminal.write(bytes);
      write(filter.push(decoder.write(Buffer.from(bytes))));
    },
    flush() {
      if (terminal.json || raw) return;
      write(filter.push(decoder.end()) + filter.flush());
      // A colour that the log left on would colour the prompt.
      terminal.write(`${terminal.colours ? "\u001b[0m" : ""}${last === "\n" ? "" : "\n"}`);
    },
  };
}
