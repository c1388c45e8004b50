import { parseBase64, unshared } from "./bytes.ts";

/** Whoever can sign: a key on disk, an ssh-agent, a hardware token. `sign` gives the 64 bytes of RFC 8032 over the message itself. */
export type Signer = { publicKey: Uint8Array; sign: (message: Uint8Array) => Promise<Uint8Array> };

/** PKCS #8 of an Ed25519 seed (RFC 8410): everything before the 32 bytes. */
const PKCS8_PREFIX = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/**
 * True when the signature is of these bytes by this key. The platform's verifier decides, everywhere the same, because strict
 * libraries and native code differ on crafted keys; those are kept out by `admitKey`. Never throws: workerd raises an error
 * for a signature that is not 64 bytes, which is only one more way to be wrong.
 */
export async function verifySignature(
  publicKey: Uint8Array,
  signature: Uint8Array,
  message: Uint8Array,
): Promise<boolean> {
  if (publicKey.length !== 32 || signature.length !== 64) return false;
  try {
    const key = await crypto.subtle.importKey("raw", unshared(publicKey), "Ed25519", false, ["verify"]);
    return await crypto.subtle.verify("Ed25519", key, unshared(signature), unshared(message));
  } catch {
    return false;
  }
}

/** A signer of a 32-byte RFC 8032 seed, on the platform's own Ed25519. Throws a RangeError for a seed of another length. */
export async function signerFromSeed(seed: Uint8Array): Promise<Signer> {
  if (seed.length !== 32) throw new RangeError("an Ed25519 seed has 32 bytes");
  const der = new Uint8Array([...PKCS8_PREFIX, ...seed]);
  const key = await crypto.subtle.importKey("pkcs8", der, "Ed25519", true, ["sign"]);
  const { x } = await crypto.subtle.exportKey("jwk", key);
  const publicKey = parseBase64(x ?? "");
  if (publicKey === null) throw new Error("the platform exported no public key");
  return {
    publicKey,
    sign: async (message) => new Uint8Array(await crypto.subtle.sign("Ed25519", key, unshared(message))),
  };
}
