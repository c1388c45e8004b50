import { parseHex, toHex } from "./bytes.ts";
import { accepted, refused, type Result } from "./result.ts";

/** Bitcoin's base 58, which multibase calls `z`. */
const ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/** The multicodec `ed25519-pub` as a varint. */
const ED25519_PREFIX = "ed01";

/**
 * The `did:key` of a raw Ed25519 public key of 32 bytes: `did:key:z` and base58btc of 0xED 0x01 and the key, 56 characters in all.
 * Throws a RangeError when the key has another length: raw keys are checked where they enter (`admitKey`).
 */
export function didKeyOf(publicKey: Uint8Array): string {
  if (publicKey.length !== 32) throw new RangeError("an Ed25519 public key has 32 bytes");
  return `did:key:z${encodeBase58(`${ED25519_PREFIX}${toHex(publicKey)}`)}`;
}

/** Base58btc of bytes in hex. A leading zero byte is the digit `1`. */
export function encodeBase58(hex: string): string {
  let digits = "";
  for (let rest = BigInt(`0x${hex}`); rest > 0n; rest /= 58n) digits = ALPHABET[Number(rest % 58n)] + digits;
  const zeros = /^(?:00)*/.exec(hex)?.[0].length ?? 0;
  return "1".repeat(zeros / 2) + digits;
}

/**
 * The 32 raw bytes of an Ed25519 `did:key`. Strict: base58btc only, no other multicodec, no fragment, no white space. The prefix is
 * never zero, so that the number has one spelling and equal texts are equal keys. Whether the key is good is `admitKey`'s question.
 */
export function parseDidKey(text: string): Result<Uint8Array<ArrayBuffer>, "bad-did-key"> {
  if (!/^did:key:z[1-9A-HJ-NP-Za-km-z]{47}$/.test(text))
    return refused("bad-did-key", "not an Ed25519 did:key: `did:key:z` and 47 base58 characters are expected");
  let number = 0n;
  for (const character of text.slice("did:key:z".length)) number = number * 58n + BigInt(ALPHABET.indexOf(character));
  const hex = number.toString(16);
  // Another multicodec does not survive being written again.
  const key = hex.length === 68 ? parseHex(hex.slice(ED25519_PREFIX.length)) : null;
  if (key === null || didKeyOf(key) !== text)
    return refused("bad-did-key", "the did:key does not hold an Ed25519 public key (multicodec 0xed01)");
  return accepted(key);
}
