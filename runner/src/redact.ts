import { Automaton } from "./redact-automaton.ts";
import { formsOf, Visible } from "./redact-forms.ts";

/** Masks the values of secrets wherever a run speaks. */
export interface Redactor {
  /** A stream of its own: what one process writes is not continued by another. */
  stream(): RedactedStream;
  /** A text that is whole: a reason, an error, the name of a step. */
  text(text: string): string;
  /** Any JSON value with its texts masked and no longer than before; what is a word of the wire (`WORDS`) stays. */
  json<T>(value: T): T;
  /** How often each secret was masked, by name, over all streams and texts. */
  readonly counts: ReadonlyMap<string, number>;
  /** Secrets that are too short to be masked without masking ordinary words. */
  readonly tooShort: readonly string[];
}

/** Masks the values of secrets in a stream of bytes. */
export interface RedactedStream {
  /** The next bytes that are safe to show, which may be a view of `chunk`. What might be the beginning of a secret waits for more. */
  push(chunk: Uint8Array): Uint8Array;
  /** When nothing more came for a while: the bytes that waited, but for what is more than half of a secret. */
  settle(): Uint8Array;
  /** The bytes that still waited. The stream is over then. */
  flush(): Uint8Array;
}

/** What stands for a secret. */
export const MASK = "[redacted]";
const MASK_BYTES = Buffer.from(MASK);

/**
 * A redactor for secrets by name, in all the spellings of `formsOf`. White space and colours inside a secret do not hide it. Not recognised: compression, encryption, and encodings of encodings.
 */
export function createRedactor(secrets: Readonly<Record<string, Uint8Array>>): Redactor {
  const names = Object.keys(secrets);
  const forms = names.map((name) => formsOf(secrets[name] ?? new Uint8Array()));
  const automaton = new Automaton(forms.flatMap((some, at) => some.map((bytes) => ({ secret: at + 1, bytes }))));
  const counts = new Map(names.map((name) => [name, 0]));
  const seen = (secret: number): void => {
    const name = names[secret - 1] ?? "";
    counts.set(name, (counts.get(name) ?? 0) + 1);
  };
  const text = (whole: string): string => {
    const stream = new Stream(automaton, seen);
    const parts = [stream.push(Buffer.from(whole)), stream.flush()];
    // A text without a secret stays the very text, half surrogates included.
    return parts.some((part) => Buffer.from(part).includes(MASK_BYTES)) ? Buffer.concat(parts).toString() : whole;
  };
  return {
    stream: () => new Stream(automaton, seen),
    text,
    json: (value) => mapTexts(value, text) as typeof value,
    counts,
    tooShort: names.filter((_, at) => forms[at]?.length === 0),
  };
}

/** Fields whose values are words of the protocol: a secret that is such a word must not make a result unreadable. */
const WORDS = ["type", "phase", "state", "code", "outcome"];

function mapTexts(value: unknown, change: (text: string) => string): unknown {
  // A mask is longer than some secrets, and the wire bounds every text.
  if (typeof value === "string") return change(value).slice(0, Math.max(value.length, MASK.length));
  if (Array.isArray(value)) return value.map((one) => mapTexts(one, change));
  if (typeof value !== "object" || value === null) return value;
  const fields = Object.entries(value);
  return Object.fromEntries(fields.map(([key, one]) => [key, WORDS.includes(key) ? one : mapTexts(one, change)]));
}

/** Places are counted from the beginning of the stream. */
class Stream implements RedactedStream {
  readonly #automaton: Automaton;
  readonly #seen: (secret: number) => void;
  readonly #visible = new Visible((byte, at) => this.#read(byte, at));
  #state = 0;
  /** Bytes that were not given out yet, and where the first of them stands. */
  #held: Buffer = Buffer.alloc(0);
  #start = 0;
  /** For each held byte, the secret that it belongs to, or 0; null while all of them are 0, as in most output. */
  #secret: Uint16Array | null = null;
  /** Where the last bytes that the automaton saw stand: as many as may begin a secret. */
  #at: number[] = [];
  /** Secrets of the mask that was given out last, when nothing else came after it. */
  readonly #masked = new Set<number>();

  constructor(automaton: Automaton, seen: (secret: number) => void) {
    this.#automaton = automaton;
    this.#seen = seen;
  }

  push(chunk: Uint8Array): Uint8Array {
    const heldBytes = this.#held.length;
    const from = this.#start + heldBytes;
    this.#held = heldBytes === 0 ? viewOf(chunk) : Buffer.concat([this.#held, chunk]);
    if (this.#secret !== null) {
      const secret = new Uint16Array(this.#held.length);
      secret.set(this.#secret);
      this.#secret = secret;
    }
    for (let index = 0; index < chunk.length; index++) {
      if (this.#state === 0 && this.#visible.isSettled) index = this.#automaton.skip(chunk, index);
      const byte = chunk[index];
      if (byte !== undefined) this.#visible.push(byte, from + index);
    }
    return this.#giveOut(this.#automaton.depth(this.#state));
  }

  settle(): Uint8Array {
    return this.#giveOut(this.#automaton.half(this.#state));
  }

  flush(): Uint8Array {
    this.#visible.end();
    this.#state = 0;
    return this.#giveOut(0);
  }

  #read(byte: number, at: number): void {
    this.#state = this.#automaton.next(this.#state, byte);
    const depth = this.#automaton.depth(this.#state);
    if (depth === 0) {
      this.#at.length = 0;
      return;
    }
    this.#at.push(at);
    const length = this.#automaton.matched(this.#state);
    if (length > 0) {
      const from = Math.max(0, (this.#at.at(-length) ?? 0) - this.#start);
      this.#secret ??= new Uint16Array(this.#held.length);
      this.#secret.fill(this.#automaton.secret(this.#state), from, at + 1 - this.#start);
    }
    // Trimmed now and then: every byte would cost a move of all.
    if (this.#at.length > 2 * depth + 64) this.#at = this.#at.slice(-depth);
  }

  /** Gives out everything before the last `kept` bytes that the automaton saw. */
  #giveOut(kept: number): Uint8Array {
    const end = kept === 0 ? this.#held.length : Math.max(0, (this.#at.at(-kept) ?? 0) - this.#start);
    const given = this.#held.subarray(0, end);
    const secret = this.#secret;
    // A copy of what stays: the chunk may be a view of a buffer that its reader uses again.
    this.#held = Buffer.from(this.#held.subarray(end));
    this.#secret = secret?.subarray(end).some((one) => one !== 0) === true ? secret.subarray(end) : null;
    this.#start += end;
    if (secret !== null) return this.#masking(given, secret);
    if (end > 0) this.#masked.clear();
    return given;
  }

  #masking(given: Buffer, secret: Uint16Array): Uint8Array {
    const parts: Uint8Array[] = [];
    for (let start = 0; start < given.length;) {
      const isSecret = secret[start] !== 0;
      let stop = start + 1;
      while (stop < given.length && (secret[stop] !== 0) === isSecret) stop++;
      if (isSecret) this.#mask(parts, secret.subarray(start, stop));
      else {
        parts.push(given.subarray(start, stop));
        this.#masked.clear();
      }
      start = stop;
    }
    return Buffer.concat(parts);
  }

  /** One mask for secrets that stand together, each counted once. */
  #mask(parts: Uint8Array[], secrets: Uint16Array): void {
    if (this.#masked.size === 0) parts.push(MASK_BYTES);
    for (const secret of new Set(secrets)) {
      if (!this.#masked.has(secret)) this.#seen(secret);
      this.#masked.add(secret);
    }
  }
}

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}
