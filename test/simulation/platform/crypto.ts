import {
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  type KeyObject,
  sign,
  timingSafeEqual,
  verify,
} from "node:crypto";
import type { Random } from "./random.ts";

type Key = { kind: "public" | "private"; key: KeyObject } | { kind: "hmac"; secret: Uint8Array };
type Bytes = Uint8Array | ArrayBuffer;

/** DER of a public key before its 32 bytes (RFC 8410); the last number of its curve's name tells them apart. */
const SPKI_PREFIX = (curve: "Ed25519" | "X25519"): Uint8Array =>
  Uint8Array.from([
    0x30,
    0x2a,
    0x30,
    0x05,
    0x06,
    0x03,
    0x2b,
    0x65,
    curve === "Ed25519" ? 0x70 : 0x6e,
    0x03,
    0x21,
    0x00,
  ]);

const view = (bytes: Bytes): Uint8Array => (bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes));
const bufferOf = (bytes: Uint8Array): ArrayBuffer => new Uint8Array(bytes).buffer;

/**
 * `crypto` with the same results and no threads: digests and signatures are made at once by OpenSSL, since a thread pool answers in an order
 * that no seed decides. Random bytes come from the seed, and `pause` says when an answer takes its time all the same.
 */
export function createCrypto(entropy: () => Random, pause: () => Promise<void> | null): unknown {
  return {
    subtle: {
      ...subtle,
      async digest(algorithm: "SHA-256", bytes: Bytes): Promise<ArrayBuffer> {
        await pause();
        return subtle.digest(algorithm, bytes);
      },
      async verify(algorithm: string, key: Key, signature: Bytes, message: Bytes): Promise<boolean> {
        await pause();
        return subtle.verify(algorithm, key, signature, message);
      },
    },
    DigestStream,
    getRandomValues(array: Uint8Array | Uint32Array) {
      entropy().fill(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
      return array;
    },
    randomUUID() {
      const bytes = new Uint8Array(16);
      entropy().fill(bytes);
      bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
      bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
      const hex = Buffer.from(bytes).toString("hex");
      return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
    },
  };
}

const subtle = {
  async digest(_algorithm: "SHA-256", bytes: Bytes): Promise<ArrayBuffer> {
    return bufferOf(createHash("sha256").update(view(bytes)).digest());
  },
  async importKey(
    format: "raw" | "pkcs8",
    bytes: Bytes,
    algorithm: "Ed25519" | { name: "HMAC" | "X25519" },
  ): Promise<Key> {
    const name = algorithm === "Ed25519" ? algorithm : algorithm.name;
    if (name === "HMAC") return { kind: "hmac", secret: view(bytes) };
    const der = Buffer.from(view(bytes));
    return format === "pkcs8"
      ? { kind: "private", key: privateKeyOf(der) }
      : { kind: "public", key: publicKeyOf(name, der) };
  },
  async deriveBits({ public: peer }: { public: Key }, key: Key): Promise<ArrayBuffer> {
    if (peer.kind === "hmac" || key.kind === "hmac") throw new Error("not a key to agree with");
    return bufferOf(diffieHellman({ privateKey: key.key, publicKey: peer.key }));
  },
  async exportKey(_format: "jwk", key: Key): Promise<unknown> {
    if (key.kind === "hmac") throw new Error("not exported here");
    return createPublicKey(key.key).export({ format: "jwk" });
  },
  async sign(_algorithm: string, key: Key, message: Bytes): Promise<ArrayBuffer> {
    if (key.kind === "hmac") return bufferOf(createHmac("sha256", key.secret).update(view(message)).digest());
    return bufferOf(sign(null, view(message), key.key));
  },
  async verify(_algorithm: string, key: Key, signature: Bytes, message: Bytes): Promise<boolean> {
    if (key.kind === "hmac") throw new Error("not verified here");
    return verify(null, view(message), key.key, view(signature));
  },
  timingSafeEqual: (a: Bytes, b: Bytes): boolean => timingSafeEqual(view(a), view(b)),
};

const keys = new Map<string, KeyObject>();

/** The few keys of a world are read again and again. */
function known(name: string, read: () => KeyObject): KeyObject {
  const key = keys.get(name) ?? read();
  keys.set(name, key);
  return key;
}

function privateKeyOf(der: Buffer): KeyObject {
  return known(`private ${der.toString("base64")}`, () => createPrivateKey({ key: der, format: "der", type: "pkcs8" }));
}

function publicKeyOf(curve: "Ed25519" | "X25519", raw: Buffer): KeyObject {
  return known(`${curve} ${raw.toString("base64")}`, () =>
    createPublicKey({ key: Buffer.concat([SPKI_PREFIX(curve), raw]), format: "der", type: "spki" }),
  );
}

class DigestStream {
  readonly digest: Promise<ArrayBuffer>;
  readonly #hash = createHash("sha256");
  readonly #finish: (digest: ArrayBuffer) => void;

  constructor() {
    const { promise, resolve } = Promise.withResolvers<ArrayBuffer>();
    this.digest = promise;
    this.#finish = resolve;
  }

  getWriter(): { write(bytes: Bytes): Promise<void>; close(): Promise<void> } {
    return {
      write: async (bytes) => void this.#hash.update(view(bytes)),
      close: async () => this.#finish(bufferOf(this.#hash.digest())),
    };
  }
}
