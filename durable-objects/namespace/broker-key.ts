import {
  didKeyOf,
  parseBase64,
  signEnvelope,
  type Signer,
  signerFromSeed,
  toBase64,
  type WireEnvelope,
} from "@plumule/protocol";
import { transact } from "../shared/transact.ts";
import { readBody, saveBody } from "./store/settings.ts";

/** The setting that holds the seed. It never leaves the object: the others get signatures. */
const SETTING = "broker-key";

/** The key of an installation: what the broker says in its own name is signed by it. */
export type BrokerKey = {
  /** The did:key; null as long as nothing was signed and no namespace was made, since a question must not bring a key into being (P12). */
  read(): Promise<string | null>;
  /** The did:key, of a new key where there was none. */
  make(): Promise<string>;
  /** Signs a payload of a DSSE envelope. */
  sign(payloadType: string, payload: Uint8Array): Promise<WireEnvelope>;
};

/** Opens the key that is kept in an object's storage. */
export function createBrokerKey(storage: DurableObjectStorage): BrokerKey {
  const { sql } = storage;
  let known: Promise<Signer> | null = null;

  const readSeed = (): Uint8Array | null => {
    const body = readBody(sql, SETTING);
    return body === null ? null : parseBase64((JSON.parse(body) as { seed: string }).seed);
  };
  const makeSeed = (): Uint8Array => {
    const seed = crypto.getRandomValues(new Uint8Array(32));
    transact(storage, () => saveBody(sql, SETTING, 1, JSON.stringify({ seed: toBase64(seed) })));
    return seed;
  };
  const signer = (): Promise<Signer> => (known ??= signerFromSeed(readSeed() ?? makeSeed()));

  return {
    read: async () => (readSeed() === null ? null : didKeyOf((await signer()).publicKey)),
    make: async () => didKeyOf((await signer()).publicKey),
    sign: async (payloadType, payload) => signEnvelope(payloadType, payload, await signer()),
  };
}
