import { createPublicKey, verify } from "node:crypto";

/** What Nix's signature of a store path covers. */
export interface SignedPathInfo {
  /** Full store path; the store directory is part of what is signed. */
  readonly path: string;
  /** SHA-256 of the NAR, lower-case hex. */
  readonly narHash: string;
  /** Bytes of the NAR. */
  readonly narSize: number;
  /** Full store paths, in any order. */
  readonly references: readonly string[];
}

/** Nix's own base 32: no e, o, t, u; least significant digit last. */
const ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz";

/** SubjectPublicKeyInfo of Ed25519 up to the 32 bytes of the key (RFC 8410). */
const ED25519_PREFIX = Buffer.from("302a300506032b6570032100", "hex");

/** Writes bytes in Nix's base 32, for instance a SHA-256 as 52 characters. */
export function encodeNix32(bytes: Uint8Array): string {
  let text = "";
  for (let digit = Math.ceil((bytes.length * 8) / 5) - 1; digit >= 0; digit--) {
    const bit = digit * 5;
    const index = bit >> 3;
    const pair = (bytes[index] ?? 0) | ((bytes[index + 1] ?? 0) << 8);
    text += ALPHABET[(pair >> (bit & 7)) & 31];
  }
  return text;
}

/** Reads Nix's base 32; undefined when the text is no canonical encoding of whole bytes. */
export function decodeNix32(text: string): Uint8Array | undefined {
  const bytes = new Uint8Array(Math.floor((text.length * 5) / 8));
  for (const [position, character] of Array.from(text).toReversed().entries()) {
    const digit = ALPHABET.indexOf(character);
    if (digit === -1) return undefined;
    const bit = position * 5;
    const index = bit >> 3;
    const pair = digit << (bit & 7);
    bytes[index] = (bytes[index] ?? 0) | (pair & 255);
    if (index + 1 < bytes.length) bytes[index + 1] = pair >> 8;
  }
  // Bits beyond the last byte, or a length that no bytes have, would make two texts for one value.
  return encodeNix32(bytes) === text ? bytes : undefined;
}

/** The bytes that a signature of a store path covers (Nix, `libstore/path-info.cc`). */
export function pathFingerprint({ path, narHash, narSize, references }: SignedPathInfo): Uint8Array {
  const hash = encodeNix32(Buffer.from(narHash, "hex"));
  return Buffer.from(`1;${path};sha256:${hash};${narSize};${references.toSorted().join(",")}`);
}

/**
 * Signs a store path as Nix does: `keyName:base64`, ready for a narinfo's `Sig:`. `sign` makes a raw Ed25519 signature of
 * 64 bytes. Throws for a key name that would not come back from that text.
 */
export async function signPath(
  info: SignedPathInfo,
  keyName: string,
  sign: (bytes: Uint8Array) => Uint8Array | Promise<Uint8Array>,
): Promise<string> {
  if (!/^[^:\s]+$/.test(keyName)) throw new Error(`${JSON.stringify(keyName)} cannot be the name of a Nix key`);
  return `${keyName}:${Buffer.from(await sign(pathFingerprint(info))).toString("base64")}`;
}

/**
 * True when `signature` (`keyName:base64`) is a signature of the path by `publicKey` (`keyName:base64` of 32 bytes).
 * As for Nix, another key name is another key. Malformed input is false.
 */
export function verifyPathSignature(info: SignedPathInfo, signature: string, publicKey: string): boolean {
  const [signer, signed] = splitNamed(signature);
  const [name, key] = splitNamed(publicKey);
  if (signer !== name || name === "" || signed.length !== 64 || key.length !== 32) return false;
  const spki = createPublicKey({ key: Buffer.concat([ED25519_PREFIX, key]), format: "der", type: "spki" });
  return verify(null, pathFingerprint(info), spki, signed);
}

/** Nix's text for a public key of 32 bytes, as `trusted-public-keys` wants it. */
export function encodeNixPublicKey(keyName: string, publicKey: Uint8Array): string {
  return `${keyName}:${Buffer.from(publicKey).toString("base64")}`;
}

function splitNamed(text: string): [name: string, bytes: Buffer] {
  const colon = text.indexOf(":");
  return [text.slice(0, Math.max(0, colon)), Buffer.from(text.slice(colon + 1), "base64")];
}
