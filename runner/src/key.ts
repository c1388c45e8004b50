import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import type { Signer } from "@plumule/protocol";
import { createPrivateFile, readPrivateFile } from "./private-file.ts";
import { SshReader } from "./ssh-wire.ts";

/** Why a key cannot be used; `detail` says what to do. An OpenSSH file with a passphrase still tells its public key, by which an agent is asked. */
export type KeyRefusal = {
  ok: false;
  reason: "missing" | "exists" | "permissions" | "format" | "encrypted";
  detail: string;
  publicKey?: Uint8Array;
};

/** A signer from a key file, or why not. */
export type KeyResult = { ok: true; signer: Signer } | KeyRefusal;

/**
 * Makes a new Ed25519 key file: PKCS #8 in PEM (RFC 8410), which `openssl pkey -in` reads too, with mode 0600. Never overwrites.
 */
export async function createKey(path: string): Promise<KeyResult> {
  const { privateKey } = generateKeyPairSync("ed25519");
  const made = await createPrivateFile(path, privateKey.export({ type: "pkcs8", format: "pem" }));
  if (!made) return refuse("exists", `${path} exists; a key is never overwritten`);
  return { ok: true, signer: signerOf(privateKey) };
}

/**
 * Reads a key file: PKCS #8 PEM as above, or an unencrypted OpenSSH Ed25519 key. A file that others may read is refused,
 * because whoever copied it can sign results in this runner's name.
 */
export async function loadKey(path: string): Promise<KeyResult> {
  const read = await readPrivateFile(path);
  return read.ok ? parseKey(read.text) : read;
}

function parseKey(text: string): KeyResult {
  try {
    if (text.includes("-----BEGIN OPENSSH PRIVATE KEY-----")) return parseOpenSsh(text);
    if (text.includes("-----BEGIN ENCRYPTED PRIVATE KEY-----")) return encrypted();
    const key = createPrivateKey({ key: text, format: "pem" });
    if (key.asymmetricKeyType === "ed25519") return { ok: true, signer: signerOf(key) };
    return refuse("format", `a key of kind ${key.asymmetricKeyType}, not ed25519`);
  } catch {
    // The parser's own message could quote the key.
    return refuse("format", "neither PKCS #8 in PEM nor an OpenSSH private key");
  }
}

/** OpenSSH's PROTOCOL.key: magic, cipher, kdf, options, key count, public key, private block. */
function parseOpenSsh(text: string): KeyResult {
  const body =
    /-----BEGIN OPENSSH PRIVATE KEY-----([A-Za-z0-9+/=\s]+)-----END OPENSSH PRIVATE KEY-----/.exec(text)?.[1] ?? "";
  const outer = new SshReader(Buffer.from(body, "base64"));
  if (Buffer.from(outer.bytes(15)).toString("latin1") !== "openssh-key-v1\0") return refuse("format", "no OpenSSH key");
  const [cipher] = [outer.text(), outer.text(), outer.text()];
  if (outer.uint32() !== 1) return refuse("format", "more than one key in the file");
  const open = new SshReader(outer.string());
  const openKind = open.text();
  if (cipher !== "none") return openKind === "ssh-ed25519" ? { ...encrypted(), publicKey: open.string() } : encrypted();
  const inner = new SshReader(outer.string());
  if (inner.uint32() !== inner.uint32()) return refuse("format", "a damaged OpenSSH key");
  const kind = inner.text();
  if (kind !== "ssh-ed25519") return refuse("format", `a key of kind ${kind}, not ssh-ed25519`);
  const publicKey = inner.string();
  const seed = inner.string().subarray(0, 32);
  const jwk = { kty: "OKP", crv: "Ed25519", d: base64url(seed), x: base64url(publicKey) };
  const signer = signerOf(createPrivateKey({ key: jwk, format: "jwk" }));
  return Buffer.compare(signer.publicKey, publicKey) === 0
    ? { ok: true, signer }
    : refuse("format", "a damaged OpenSSH key");
}

function signerOf(privateKey: KeyObject): Signer {
  const { x } = createPublicKey(privateKey).export({ format: "jwk" });
  return {
    publicKey: new Uint8Array(Buffer.from(x ?? "", "base64url")),
    sign: async (message) => new Uint8Array(sign(null, message, privateKey)),
  };
}

function base64url(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64url");
}

function encrypted(): KeyRefusal {
  return refuse("encrypted", "the key has a passphrase; add it to an ssh-agent and let the runner use that");
}

function refuse(reason: KeyRefusal["reason"], detail: string): KeyRefusal {
  return { ok: false, reason, detail };
}
