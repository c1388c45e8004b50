import { styleText } from "node:util";
import type { JobLimits, JobState, RunState } from "@plumule/protocol";
import type { Failure } from "./failure.ts";
import { createTextFilter, inLine } from "./terminal-text.ts";

type Stream = { isTTY?: boolean; columns?: number; rows?: number; write: (text: string | Uint8Array) => unknown };

/** Where a command prints: data to stdout, everything that is said about it to stderr. */
export type Terminal = {
  /** Machine-readable: one JSON document per line on stdout, nothing for people. */
  readonly json: boolean;
  /** Stdout is a screen, whose last lines may be painted again. */
  readonly isScreen: boolean;
  /** Whether colours are shown on stdout. */
  readonly colours: boolean;
  readonly size: () => { columns: number; rows: number };
  /** A line of data for people. */
  readonly out: (line: string) => void;
  /** A line about what happens. */
  readonly note: (line: string) => void;
  /** A JSON document. */
  readonly data: (value: unknown) => void;
  /** Text or bytes of a log, or control sequences of our own, as they are. */
  readonly write: (text: string | Uint8Array) => void;
};

/** A terminal over the process's streams. `NO_COLOR` and `CLICOLOR_FORCE` decide about colours, else whether there is a screen. */
export function createTerminal({
  stdout,
  stderr,
  env,
  json,
}: {
  stdout: Stream;
  stderr: Stream;
  env: Readonly<Record<string, string | undefined>>;
  json: boolean;
}): Terminal {
  const colours = ({ isTTY = false }: Stream): boolean => {
    if ((env["NO_COLOR"] ?? "") !== "") return false;
    return isTTY ? env["TERM"] !== "dumb" : !["", "0"].includes(env["CLICOLOR_FORCE"] ?? "");
  };
  const printer = (stream: Stream): ((line: string) => void) => {
    const options = { colours: colours(stream) };
    return (line) => {
      const filter = createTextFilter(options);
      stream.write(`${filter.push(line)}${filter.flush()}\n`);
    };
  };
  return {
    json,
    isScreen: stdout.isTTY === true && env["TERM"] !== "dumb" && !json,
    colours: colours(stdout),
    size: () => ({ columns: stdout.columns ?? 80, rows: stdout.rows ?? 24 }),
    out: printer(stdout),
    note: printer(stderr),
    data: (value) => void stdout.write(`${JSON.stringify(value)}\n`),
    write: (text) => void stdout.write(text),
  };
}

const style =
  (format: Parameters<typeof styleText>[0]) =>
  (text: string): string =>
    styleText(format, text, { validateStream: false });

/** Colours by meaning. They are taken out again where there is no screen. */
export const paint = {
  good: style("green"),
  bad: style("red"),
  busy: style("cyan"),
  care: style("yellow"),
  quiet: style("dim"),
  strong: style("bold"),
};

/** A job's or run's state in the colour of what it means. */
export function paintState(state: JobState | RunState, text: string = state): string {
  switch (state) {
    case "succeeded":
      return paint.good(text);
    case "failed":
    case "unknown":
    case "lost":
      return paint.bad(text);
    case "assigned":
    case "running":
      return paint.busy(text);
    case "held":
    case "cancelling":
    case "cancelled":
      return paint.care(text);
    case "queued":
    case "superseded":
    case "skipped":
      return paint.quiet(text);
  }
}

/**
 * Says that something was done, and what one would do next. A program that reads stdout gets `id` alone (null: nothing yet), or the whole
 * answer with `--json`.
 */
export function printDone(
  terminal: Terminal,
  done: { line: string; next: string; id: string | null; answer: unknown },
): void {
  if (terminal.json) return terminal.data(done.answer);
  terminal.note(`${paint.good("✓")} ${done.line}  ${paint.quiet(`→ ${done.next}`)}`);
  if (!terminal.isScreen && done.id !== null) terminal.out(done.id);
}

/** Says what went wrong, where, and what to do. */
export function printFailure(terminal: Terminal, failure: Failure): void {
  if (terminal.json) {
    const { exit, what, why, errors, next, problem } = failure;
    terminal.data({
      error: problem ?? { title: what, detail: why ?? what, errors: errors ?? [], next },
      exitCode: exit,
    });
    return;
  }
  for (const line of failureLines(failure)) terminal.note(line);
}

/** A failure as lines: what, why, each wrong field with its pointer, and the next step. */
export function failureLines({ what, why, errors = [], next }: Failure): string[] {
  const lines = [`${paint.bad("✗")} ${inLine(what)}`];
  if (why !== undefined) lines.push(`  ${inLine(why)}`);
  for (const { pointer, detail } of errors)
    lines.push(`  ${paint.strong(inLine(pointer === "" ? "(whole body)" : pointer))}  ${inLine(detail)}`);
  lines.push(`  ${paint.quiet("next:")} ${inLine(next)}`);
  return lines;
}

/** Rows as aligned columns under a heading. Cells may be coloured; the last column is not padded. */
export function tableLines(heading: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = heading.map((_, column) => Math.max(...[heading, ...rows].map((row) => width(row[column] ?? ""))));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) =>
        column === cells.length - 1 ? cell : cell + " ".repeat((widths[column] ?? 0) - width(cell)),
      )
      .join("  ")
      .trimEnd();
  return [paint.quiet(line(heading)), ...rows.map(line)];
}

/** Names and values, one per line, values aligned. Null and undefined values are left out. */
export function detailLines(details: readonly (readonly [string, string | null | undefined])[]): string[] {
  const shown = details.filter((detail): detail is readonly [string, string] => detail[1] != null);
  const longest = Math.max(0, ...shown.map(([name]) => name.length));
  return shown.map(([name, value]) => `${paint.quiet(name.padEnd(longest))}  ${value}`);
}

/** How many places text takes on a screen, colours not counted. */
export function width(text: string): number {
  return Array.from(withoutColours(text)).length;
}

/** Text that fits into so many places; what is cut off is marked. Colours are given up when something must be cut. */
export function fit(text: string, columns: number): string {
  if (width(text) <= columns) return text;
  return `${Array.from(withoutColours(text))
    .slice(0, Math.max(0, columns - 1))
    .join("")}…`;
}

function withoutColours(text: string): string {
  const filter = createTextFilter({ colours: false });
  return filter.push(text) + filter.flush();
}

/**
 * The short form of a job or run id: the whole millisecond of its time. The first eight digits alone change only every 65 s, so that
 * neighbours would look alike.
 */
export function shortId(id: string): string {
  return id.slice(0, 13);
}

/** The short form of a did:key. */
export function shortKey(did: string): string {
  return `${did.slice("did:key:".length, "did:key:".length + 8)}…${did.slice(-4)}`;
}

/** A duration as `0:48`, `12:07` or `1:02:03`. */
export function clockOf(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const two = (value: number): string => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

/** How long ago something was: `now`, `12s`, `3m`, `5h`, `8d`. */
export function ageOf(time: string, now: number): string {
  const seconds = Math.floor((now - Date.parse(time)) / 1000);
  if (seconds < 1) return "now";
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7_200) return `${Math.floor(seconds / 60)}m`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)}h` : `${Math.floor(seconds / 86_400)}d`;
}

/** The same in a sentence: `just now`, `3m ago`. */
export function agoOf(time: string, now: number): string {
  const age = ageOf(time, now);
  return age === "now" ? "just now" : `${age} ago`;
}

/** A size as `312 B`, `1.4 KiB`, `20.0 MiB`. */
export function sizeOf(bytes: number): string {
  const units = ["KiB", "MiB", "GiB"];
  if (bytes < 1024) return `${bytes} B`;
  const power = Math.min(units.length, Math.floor(Math.log2(bytes) / 10));
  return `${(bytes / 1024 ** power).toFixed(1)} ${units[power - 1]}`;
}

/** What became of a job whose task file was read, in words. */
export function becameText(stepCount: number): string {
  return `became ${stepCount} ${stepCount === 1 ? "job" : "jobs"}`;
}

/** What a job may take in a few words, or null. */
export function limitsText({ memoryBytes, taskCount, workspaceBytes, logBytes }: JobLimits = {}): string | null {
  const parts = [
    memoryBytes === undefined ? "" : `memory ${sizeOf(memoryBytes)}`,
    taskCount === undefined ? "" : `${taskCount} tasks`,
    workspaceBytes === undefined ? "" : `workspace ${sizeOf(workspaceBytes)}`,
    logBytes === undefined ? "" : `log ${sizeOf(logBytes)}`,
  ].filter((part) => part !== "");
  return parts.length === 0 ? null : parts.join("; ");
}
