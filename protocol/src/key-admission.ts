import { Point } from "@noble/ed25519";
import { toHex } from "./bytes.ts";
import { parseDidKey } from "./did-key.ts";
import { accepted, refused, type Result } from "./result.ts";

/** Why a public key is not let in. */
export type KeyRefusal = "bad-key-length" | "bad-key-encoding" | "small-order-key" | "mixed-order-key";

/**
 * Checks a raw Ed25519 public key once, when it enters a list of trusted keys (about 1 ms).
 *
 * Both order checks are needed: under a key of small order one signature verifies for many messages, for the identity point even for every
 * message, in workerd and in older Node; a key of mixed order gives different answers with different verifiers.
 */
export function admitKey(publicKey: Uint8Array): Result<Uint8Array, KeyRefusal> {
  if (publicKey.length !== 32)
    return refused("bad-key-length", `an Ed25519 public key has 32 bytes, this one has ${publicKey.length}`);
  const point = decodePoint(publicKey);
  if (point === null)
    return refused("bad-key-encoding", `${toHex(publicKey)} is not the canonical encoding of a point of the curve`);
  if (point.isSmallOrder())
    return refused(
      "small-order-key",
      `${toHex(publicKey)} is a point of small order: it would accept forged signatures`,
    );
  if (!point.isTorsionFree())
    return refused(
      "mixed-order-key",
      `${toHex(publicKey)} is not in the prime-order group: verifiers would disagree about it`,
    );
  return accepted(publicKey);
}

/** Reads a `did:key` and admits its key. */
export function admitDidKey(text: string): Result<Uint8Array, KeyRefusal | "bad-did-key"> {
  const parsed = parseDidKey(text);
  return parsed.ok ? admitKey(parsed.value) : parsed;
}

function decodePoint(publicKey: Uint8Array): Point | null {
  try {
    return Point.fromBytes(publicKey, false);
  } catch {
    return null;
  }
}
