import { parseBase64, parseHex, utf8 } from "./bytes.ts";
import { verifySignature } from "./ed25519.ts";
import { accepted, refused, type Result } from "./result.ts";

/** Nix's own base 32: no e, o, t, u. */
const ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz";

/** Bytes in Nix's base 32: the least significant bits of the first byte come last (nix, libutil/base-nix-32.cc). */
export function toNix32(bytes: Uint8Array): string {
  let text = "";
  for (let digit = Math.ceil((bytes.length * 8) / 5) - 1; digit >= 0; digit--) {
    const byte = Math.floor((digit * 5) / 8);
    const shift = (digit * 5) % 8;
    text += ALPHABET.charAt((((bytes[byte] ?? 0) >> shift) | ((bytes[byte + 1] ?? 0) << (8 - shift))) & 31);
  }
  return text;
}

/** The bytes of Nix's base 32, or null. A digit that carries bits beyond the last byte is refused: one spelling per hash. */
export function parseNix32(text: string): Uint8Array<ArrayBuffer> | null {
  const bytes = new Uint8Array(Math.floor((text.length * 5) / 8));
  for (const [index, character] of Array.from(text).toReversed().entries()) {
    const value = ALPHABET.indexOf(character);
    if (value < 0) return null;
    const byte = Math.floor((index * 5) / 8);
    const bits = value << ((index * 5) % 8);
    // Writes beyond the end are dropped; a digit that lost bits does not survive the comparison below.
    bytes[byte] = (bytes[byte] ?? 0) | (bits & 0xff);
    bytes[byte + 1] = bits >> 8;
  }
  return toNix32(bytes) === text ? bytes : null;
}

/** The 32 bytes of a SHA-256 as Nix writes it: `sha256:<nix32>`, `sha256:<hex>` or SRI `sha256-<base64>`; null otherwise. */
export function parseNarHash(text: string): Uint8Array<ArrayBuffer> | null {
  const [, separator, digits = ""] = /^sha256([:-])(.+)$/.exec(text) ?? [];
  if (separator === undefined) return null;
  const bytes = separator === "-" ? parseBase64(digits) : digits.length === 64 ? parseHex(digits) : parseNix32(digits);
  return bytes?.length === 32 ? bytes : null;
}

/** What Nix signs of a store path. `narHash` holds the 32 bytes, `references` full store paths in any order. */
export type NixPathInfo = { path: string; narHash: Uint8Array; narSize: number; references: readonly string[] };

/**
 * The text that Nix signs for a path (nix, libstore/path-info.cc): `1;<path>;sha256:<nix32>;<size>;<references, sorted, by comma>`.
 * The store directory is part of it.
 */
export function pathFingerprint({ path, narHash, narSize, references }: NixPathInfo): string {
  return `1;${path};sha256:${toNix32(narHash)};${narSize};${references.toSorted().join(",")}`;
}

/** A named key or signature as Nix writes it: `name:base64`. */
export type NamedBytes = { name: string; bytes: Uint8Array };

/** Splits `name:base64` of a public key (32 bytes) or a signature (64 bytes), or gives null. */
export function parseNamedBytes(text: string, length: 32 | 64): NamedBytes | null {
  const colon = text.indexOf(":");
  const bytes = parseBase64(text.slice(colon + 1));
  return colon > 0 && bytes?.length === length ? { name: text.slice(0, colon), bytes } : null;
}

/**
 * Verifies a signature of a path (`name:base64`) under a public key (`name:base64`), as `nix store verify` does: names must be equal.
 * The value is the key's name.
 */
export async function verifyNixSignature(
  info: NixPathInfo,
  signature: string,
  publicKey: string,
): Promise<Result<string, "bad-nix-key" | "bad-nix-signature">> {
  const key = parseNamedBytes(publicKey, 32);
  if (key === null) return refused("bad-nix-key", "a public key of Nix is `name:` and the base64 of 32 bytes");
  const signed = parseNamedBytes(signature, 64);
  if (signed === null) return refused("bad-nix-signature", "a signature of Nix is `name:` and the base64 of 64 bytes");
  if (signed.name !== key.name)
    return refused("bad-nix-signature", `the signature is by ${signed.name}, the key is ${key.name}`);
  const ok = await verifySignature(key.bytes, signed.bytes, utf8(pathFingerprint(info)));
  return ok
    ? accepted(key.name)
    : refused("bad-nix-signature", `the signature by ${key.name} does not verify for ${info.path}`);
}
