/** A value in `fields` of an event: Nix sends integers and strings. */
export type NixField = string | number;

/** One line of standard error under `--log-format internal-json`, decoded. Ids are decimal strings of 64-bit integers. */
export type NixEvent =
  | {
      readonly action: "start";
      readonly id: string;
      readonly type: number;
      readonly level: number;
      readonly text: string;
      readonly parent: string;
      readonly fields: readonly NixField[];
    }
  | { readonly action: "stop"; readonly id: string }
  | { readonly action: "result"; readonly id: string; readonly type: number; readonly fields: readonly NixField[] }
  | { readonly action: "message"; readonly level: number; readonly text: string; readonly raw: string | undefined }
  | { readonly action: "plain"; readonly text: string };

/** `start.type` of the activities that the runner follows; other numbers are valid and ignored. */
export const ACTIVITY = {
  copyPath: 100,
  fileTransfer: 101,
  builds: 104,
  build: 105,
  substitute: 108,
  waiting: 111,
} as const;

/** `result.type` of the results that the runner follows. */
export const RESULT = { logLine: 101, setPhase: 104, progress: 105, postBuildLogLine: 107 } as const;

/** Longest line kept; the rest of a longer one is dropped, because a builder can print gigabytes without a newline. */
export const LINE_LIMIT_CHARS = 1024 * 1024;

/**
 * Decodes one line without its newline. Never throws: whatever is no well-formed event comes back as `plain`, with the
 * text as it was, because builders can print lines that begin with `@nix`.
 */
export function decodeLine(line: string): NixEvent {
  const text = line.replace(/^<\d>/, "");
  if (!text.startsWith("@nix ")) return { action: "plain", text };
  return decodeEvent(parseObject(text.slice(5))) ?? { action: "plain", text };
}

/** The text without the colour sequences that Nix puts into messages. */
export function stripColour(text: string): string {
  // oxlint-disable-next-line no-control-regex -- ESC is what begins a colour sequence
  return text.replace(/\x1b\[[0-9;]*m/g, "");
}

/** Cuts a byte stream into lines of UTF-8 text; bytes that are no UTF-8 become U+FFFD. */
export interface LineSplitter {
  /** The lines that this chunk completes. */
  push(chunk: Uint8Array): string[];
  /** The last line, when the stream did not end with a newline. */
  end(): string[];
}

/** A splitter that remembers at most `limitChars` of an unfinished line. */
export function createLineSplitter(limitChars: number = LINE_LIMIT_CHARS): LineSplitter {
  const decoder = new TextDecoder();
  let rest = "";
  // A line that is full already takes no more, or every chunk of an endless line would be copied with it.
  const grow = (line: string, part: string): string =>
    line.length < limitChars ? (line + part).slice(0, limitChars) : line;
  const split = (text: string): string[] => {
    const [first = "", ...more] = text.split("\n");
    const lines = [grow(rest, first), ...more.map((part) => grow("", part))];
    rest = lines.pop() ?? "";
    return lines;
  };
  return {
    push: (chunk) => split(decoder.decode(chunk, { stream: true })),
    end: () => {
      const lines = split(decoder.decode());
      if (rest !== "") lines.push(rest);
      rest = "";
      return lines;
    },
  };
}

function parseObject(json: string): Record<string, unknown> | undefined {
  // Ids are pid · 2^32 + n and exceed 2^53, where JSON.parse would merge neighbours. Inside a string the second quote
  // would be escaped, so that text never matches.
  const quoted = json.replace(/"(id|parent)":\s*(\d+)/g, '"$1":"$2"');
  try {
    const value: unknown = JSON.parse(quoted);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

function decodeEvent(value: Record<string, unknown> | undefined): NixEvent | undefined {
  if (value === undefined) return undefined;
  const { action, id, type, level, text, msg, raw_msg: raw } = value;
  if (action === "msg") {
    if (typeof msg !== "string" || typeof level !== "number") return undefined;
    return { action: "message", level, text: msg, raw: typeof raw === "string" ? raw : undefined };
  }
  if (typeof id !== "string") return undefined;
  if (action === "stop") return { action, id };
  if (typeof type !== "number") return undefined;
  const fields = decodeFields(value["fields"]);
  if (fields === undefined) return undefined;
  if (action === "result") return { action, id, type, fields };
  if (action !== "start" || typeof level !== "number" || typeof text !== "string") return undefined;
  // Absent in 2.8; "0" means none in newer versions.
  const parent = typeof value["parent"] === "string" ? value["parent"] : "0";
  return { action, id, type, level, text, parent, fields };
}

function decodeFields(value: unknown): readonly NixField[] | undefined {
  if (value === undefined) return [];
  if (!Array.isArray(value)) return undefined;
  return value.every((field) => typeof field === "string" || typeof field === "number") ? value : undefined;
}
