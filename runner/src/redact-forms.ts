/** Shortest value or line that is masked, in visible bytes: shorter ones would mask ordinary words. */
export const SECRET_BYTES_MIN = 6;

/** Longest colour sequence that is looked through: three colours in full with their attributes. */
const COLOUR_BYTES_MAX = 64;

/** The byte with which a colour sequence begins. */
export const ESCAPE = 0x1b;

/**
 * What of a stream secrets are compared with: not white space, which a shell or an encoder may change anywhere, and not what colours a
 * terminal (`ESC [ … m`, and the `ESC [ K` that grep puts beside it). `see` gets every other byte with its place.
 */
export class Visible {
  readonly #see: (byte: number, at: number) => void;
  /** A sequence that has begun. If it turns out to be another one, all of it is seen after all. */
  #pending: { byte: number; at: number }[] = [];

  constructor(see: (byte: number, at: number) => void) {
    this.#see = see;
  }

  /** Whether every byte so far was decided on. */
  get isSettled(): boolean {
    return this.#pending.length === 0;
  }

  push(byte: number, at: number): void {
    const count = this.#pending.length;
    if (count === 0 && byte !== ESCAPE) {
      if (!isBlank(byte)) this.#see(byte, at);
      return;
    }
    const fits = count === 0 || (count === 1 ? byte === 0x5b : byte >= 0x30 && byte <= 0x3b);
    if (fits && count < COLOUR_BYTES_MAX) this.#pending.push({ byte, at });
    else if (count > 1 && (byte === 0x6d || byte === 0x4b)) this.#pending = [];
    else {
      this.end();
      this.push(byte, at);
    }
  }

  /** Shows what has only begun. */
  end(): void {
    const shown = this.#pending;
    this.#pending = [];
    for (const { byte, at } of shown) if (!isBlank(byte)) this.#see(byte, at);
  }
}

/** Whether a byte is white space, which is never compared. */
export function isBlank(byte: number): boolean {
  return byte === 0x20 || (byte >= 0x09 && byte <= 0x0d);
}

/**
 * Every spelling of a secret that is looked for, without white space: the value, each of its lines, each text inside of JSON, and all as JSON, JavaScript, shell, URL,
 * XML and form text, in hex, and in base64 of both alphabets at each of the three alignments. Empty when the value is too short to mask.
 */
export function formsOf(value: Uint8Array): Uint8Array[] {
  const whole = Buffer.from(value);
  const text = whole.toString();
  const isText = Buffer.from(text).equals(whole);
  if (!isText) return isLong(whole) ? [whole, ...byteForms(whole).map(latin1)].map(visible) : [];
  const lines = text.split(/[\r\n]+/).map((line) => line.trim());
  const parts = [...new Set([text, text.trim(), ...lines, ...leavesOf(text)])].filter((part) =>
    isLong(Buffer.from(part)),
  );
  const spellings = parts.flatMap((part) => [...textForms(part), ...byteForms(Buffer.from(part))]);
  return [...new Set(spellings)].map((spelling) => visible(Buffer.from(spelling)));
}

/** The texts inside a secret that is a JSON object: an effect takes them out one by one. */
function leavesOf(text: string): string[] {
  const leaves: string[] = [];
  try {
    JSON.parse(text, (_, part: unknown) => {
      if (typeof part === "string") leaves.push(part);
      return part;
    });
  } catch {
    return [];
  }
  return leaves;
}

function textForms(text: string): string[] {
  const json = JSON.stringify(text).slice(1, -1);
  const ascii = json.replace(/[^\x20-\x7e]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const url = encodeURIComponent(text.toWellFormed());
  const strict = url.replace(/[!'()*]/g, (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`);
  const urls = [url, strict].flatMap((one) => [one, one.replaceAll("%20", "+")]);
  return [
    text,
    json,
    json.replaceAll("/", "\\/"),
    ascii,
    ascii.replaceAll("/", "\\/"),
    json.replaceAll("'", "\\'"),
    json.replaceAll('\\"', '"').replaceAll("'", "\\'"),
    text.replaceAll("'", "'\\''"),
    text.replaceAll("'", `'"'"'`),
    text.replace(/[\\"$`]/g, "\\$&"),
    text.replace(/[^\w@%+=:,./\u0080-\uffff-]/g, "\\$&"),
    text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;"),
    ...urls,
    ...urls.map((one) => one.replace(/%../g, (escape) => escape.toLowerCase())),
  ];
}

function byteForms(bytes: Buffer): string[] {
  const hex = bytes.toString("hex");
  return [hex, hex.toUpperCase(), ...base64Forms(bytes)];
}

/** The characters of base64 that the value alone decides, when 0, 1 or 2 bytes modulo 3 stand before it. */
function base64Forms(bytes: Buffer): string[] {
  return [0, 1, 2].flatMap((before) => {
    const encoded = Buffer.concat([Buffer.alloc(before), bytes]).toString("base64");
    const decided = encoded.slice(Math.ceil((before * 8) / 6), Math.floor(((before + bytes.length) * 8) / 6));
    return [decided, decided.replaceAll("+", "-").replaceAll("/", "_")];
  });
}

function visible(bytes: Uint8Array): Uint8Array {
  const seen: number[] = [];
  const view = new Visible((byte) => seen.push(byte));
  for (const byte of bytes) view.push(byte, 0);
  view.end();
  return Uint8Array.from(seen);
}

function isLong(bytes: Uint8Array): boolean {
  return visible(bytes).length >= SECRET_BYTES_MIN;
}

function latin1(text: string): Buffer {
  return Buffer.from(text, "latin1");
}
