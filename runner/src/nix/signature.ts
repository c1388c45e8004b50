import { didKeyOf, parseHex, pathFingerprint, toBase64, utf8 } from "@plumule/protocol";

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

/**
 * Signs a store path as Nix does: `keyName:base64`, ready for a narinfo's `Sig:`. `sign` makes a raw Ed25519 signature of
 * 64 bytes. Throws for a key name that would not come back from that text, and for a hash that is none.
 */
export async function signPath(
  info: SignedPathInfo,
  keyName: string,
  sign: (bytes: Uint8Array) => Uint8Array | Promise<Uint8Array>,
): Promise<string> {
  if (!/^[^:\s]+$/.test(keyName)) throw new Error(`${JSON.stringify(keyName)} cannot be the name of a Nix key`);
  const narHash = parseHex(info.narHash);
  if (narHash === null) throw new Error(`${info.path}: ${JSON.stringify(info.narHash)} is no hash in hex`);
  return `${keyName}:${toBase64(await sign(utf8(pathFingerprint({ ...info, narHash }))))}`;
}

/** Nix's text for a public key of 32 bytes, as `trusted-public-keys` wants it. */
export function encodeNixPublicKey(keyName: string, publicKey: Uint8Array): string {
  return `${keyName}:${toBase64(publicKey)}`;
}

/** The runner's name as a Nix signer: its did:key without the colons, which Nix uses to end a key's name. */
export function nixKeyName(publicKey: Uint8Array): string {
  return `plumule-${didKeyOf(publicKey).slice("did:key:".length)}`;
}
