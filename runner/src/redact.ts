/** Masks the values of secrets in a stream of bytes. */
export interface Redactor {
  /** The next bytes that are safe to show. What might be the beginning of a secret waits for more. */
  push(chunk: Uint8Array): Uint8Array;
  /** The bytes that still waited. The stream is over then. */
  flush(): Uint8Array;
  /** How often each secret was seen, by name, in any of its forms. */
  readonly hits: ReadonlyMap<string, number>;
}

/** A redactor, or the names of the secrets that are too short to be masked without masking ordinary words. */
export type RedactorResult = { ok: true; redactor: Redactor } | { ok: false; tooShort: string[] };

/** Shortest value that is masked, in characters. */
export const SECRET_CHARACTERS_MIN = 6;

interface Needle {
  name: string;
  bytes: Uint8Array;
}

const MASK = Buffer.from("[redacted]");

/**
 * A redactor for secrets by name. Masked are the value, each of its lines, its JSON, URL and hex forms, and base64 (both alphabets) in
 * which it stands at any of the three alignments. Not recognised: base64 that is broken into lines, compression, encryption.
 */
export function createRedactor(secrets: Readonly<Record<string, string>>): RedactorResult {
  const tooShort = Object.keys(secrets).filter((name) => (secrets[name] ?? "").trim().length < SECRET_CHARACTERS_MIN);
  if (tooShort.length > 0) return { ok: false, tooShort };
  const wanted = Object.entries(secrets).flatMap(([name, value]) => needles(value).map((bytes) => ({ name, bytes })));
  const hits = new Map(Object.keys(secrets).map((name) => [name, 0]));
  return { ok: true, redactor: createStream(new Automaton(wanted), hits) };
}

/** Every form of a value that is looked for. */
function needles(value: string): Buffer[] {
  const lines = value.split(/\r?\n/).map((line) => line.trim());
  const texts = [value, value.trim(), ...lines].flatMap((text) => {
    const hex = Buffer.from(text).toString("hex");
    const url = encodeURIComponent(text.toWellFormed());
    const lowerUrl = url.replace(/%../g, (escape) => escape.toLowerCase());
    const forms = [
      text,
      JSON.stringify(text).slice(1, -1),
      url,
      lowerUrl,
      url.replaceAll("%20", "+"),
      hex,
      hex.toUpperCase(),
    ];
    return [...forms, ...base64Forms(text)];
  });
  const wanted = texts.filter((text) => text.length >= SECRET_CHARACTERS_MIN);
  return [...new Set(wanted)].map((text) => Buffer.from(text));
}

/** The characters of base64 that the value alone decides, when 0, 1 or 2 bytes modulo 3 stand before it. */
function base64Forms(text: string): string[] {
  const bytes = Buffer.from(text);
  return [0, 1, 2].flatMap((before) => {
    const encoded = Buffer.concat([Buffer.alloc(before), bytes]).toString("base64");
    const decided = encoded.slice(Math.ceil((before * 8) / 6), Math.floor(((before + bytes.length) * 8) / 6));
    return [decided, decided.replaceAll("+", "-").replaceAll("/", "_")];
  });
}

/**
 * Aho–Corasick over bytes: a trie of all needles in which every state knows its longest proper suffix that is a state too. Most states of
 * long needles have one child, so children are chains and not tables: a private key in all its forms costs a megabyte, not a hundred.
 */
class Automaton {
  readonly #root = new Int32Array(256);
  readonly #firstChild: Int32Array;
  readonly #nextSibling: Int32Array;
  readonly #byte: Uint8Array;
  readonly #suffix: Int32Array;
  readonly #depth: Int32Array;
  readonly #matched: Int32Array;
  readonly #names: (string | undefined)[] = [];
  #used = 1;

  constructor(wanted: readonly Needle[]) {
    const count = 1 + wanted.reduce((sum, { bytes }) => sum + bytes.length, 0);
    this.#byte = new Uint8Array(count);
    [this.#firstChild, this.#nextSibling, this.#suffix] = [
      new Int32Array(count),
      new Int32Array(count),
      new Int32Array(count),
    ];
    [this.#depth, this.#matched] = [new Int32Array(count), new Int32Array(count)];
    for (const needle of wanted) this.#add(needle);
    this.#link();
  }

  /** The state after a byte; 0 is the state that knows nothing. */
  next(state: number, byte: number): number {
    for (let from = state; from !== 0; from = this.#suffix[from] ?? 0) {
      const child = this.#child(from, byte);
      if (child !== 0) return child;
    }
    return this.#root[byte] ?? 0;
  }

  /** Length of the longest beginning of a needle that ends here. */
  depth(state: number): number {
    return this.#depth[state] ?? 0;
  }

  /** The longest needle that ends here; its length is 0 when there is none. */
  match(state: number): { length: number; name: string } {
    return { length: this.#matched[state] ?? 0, name: this.#names[state] ?? "" };
  }

  #child(state: number, byte: number): number {
    if (state === 0) return this.#root[byte] ?? 0;
    let child = this.#firstChild[state] ?? 0;
    while (child !== 0 && this.#byte[child] !== byte) child = this.#nextSibling[child] ?? 0;
    return child;
  }

  #add({ name, bytes }: Needle): void {
    let state = 0;
    for (const byte of bytes) state = this.#child(state, byte) || this.#grow(state, byte);
    this.#matched[state] = bytes.length;
    this.#names[state] = name;
  }

  #grow(parent: number, byte: number): number {
    const state = this.#used++;
    this.#byte[state] = byte;
    this.#depth[state] = this.depth(parent) + 1;
    if (parent === 0) this.#root[byte] = state;
    else {
      this.#nextSibling[state] = this.#firstChild[parent] ?? 0;
      this.#firstChild[parent] = state;
    }
    return state;
  }

  /** Breadth first: a suffix is shorter, so it is complete before the state that falls back to it. */
  #link(): void {
    const queue = [...this.#root].filter((state) => state !== 0);
    for (const state of queue) {
      const suffix = this.#suffix[state] ?? 0;
      if (this.#matched[state] === 0) {
        this.#matched[state] = this.#matched[suffix] ?? 0;
        this.#names[state] = this.#names[suffix];
      }
      for (let child = this.#firstChild[state] ?? 0; child !== 0; child = this.#nextSibling[child] ?? 0) {
        this.#suffix[child] = this.next(suffix, this.#byte[child] ?? 0);
        queue.push(child);
      }
    }
  }
}

function createStream(automaton: Automaton, hits: Map<string, number>): Redactor {
  let state = 0;
  let held = new Uint8Array();
  /** For each held byte, whether it belongs to a secret. */
  let heldSecret = new Uint8Array();
  /** Whether the last byte that was given out belonged to a secret, whose mask stands already. */
  let masking = false;

  const giveOut = (bytes: Uint8Array, secret: Uint8Array, end: number): Uint8Array => {
    const parts: Uint8Array[] = [];
    for (let start = 0; start < end;) {
      const isSecret = secret[start] === 1;
      let stop = start + 1;
      while (stop < end && (secret[stop] === 1) === isSecret) stop++;
      if (!isSecret) parts.push(bytes.subarray(start, stop));
      else if (!masking) parts.push(MASK);
      masking = isSecret;
      start = stop;
    }
    held = new Uint8Array(bytes.subarray(end));
    heldSecret = new Uint8Array(secret.subarray(end));
    return Buffer.concat(parts);
  };
  return {
    hits,
    push: (chunk) => {
      const bytes = Buffer.concat([held, chunk]);
      const secret = new Uint8Array(bytes.length);
      secret.set(heldSecret);
      for (let index = held.length; index < bytes.length; index++) {
        state = automaton.next(state, bytes[index] ?? 0);
        const { length, name } = automaton.match(state);
        if (length === 0) continue;
        secret.fill(1, index + 1 - length, index + 1);
        hits.set(name, (hits.get(name) ?? 0) + 1);
      }
      return giveOut(bytes, secret, bytes.length - automaton.depth(state));
    },
    flush: () => {
      state = 0;
      return giveOut(held, heldSecret, held.length);
    },
  };
}
