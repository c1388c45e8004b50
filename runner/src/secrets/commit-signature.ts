import { createHash } from "node:crypto";
import { admitKey, didKeyOf, verifySignature } from "@plumule/protocol";
import { sshPublicKey, SshReader, sshString } from "../ssh-wire.ts";

/**
 * The did:key of the Ed25519 key that signed a commit with SSH, as Radicle sets git up; null for any other signature, a false one, or none.
 * `object` is the text of the commit object (`git cat-file commit`). The formats are git's (gitformat-signature) and OpenSSH's PROTOCOL.sshsig.
 */
export async function commitSigner(object: string): Promise<string | null> {
  const head = object.slice(0, object.indexOf("\n\n") + 1);
  const found = /^gpgsig(?:-sha256)? (-----BEGIN SSH SIGNATURE-----\n(?: .*\n)*? -----END SSH SIGNATURE-----)\n/m.exec(
    head,
  );
  // Which of two signatures git would look at depends on its version.
  if (found?.[1] === undefined || head.match(/^gpgsig/gm)?.length !== 1) return null;
  const signed = object.slice(0, found.index) + object.slice(found.index + found[0].length);
  try {
    return await signerOf(Buffer.from(found[1].replace(/-----[^-]+-----|\s/g, ""), "base64"), Buffer.from(signed));
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}

async function signerOf(blob: Uint8Array, message: Uint8Array): Promise<string | null> {
  const reader = new SshReader(blob);
  const isSshsig = Buffer.from(reader.bytes(6)).toString() === "SSHSIG" && reader.uint32() === 1;
  const keyBlob = reader.string();
  const [namespace, reserved, hash] = [reader.text(), reader.string(), reader.text()];
  if (!isSshsig || namespace !== "git" || (hash !== "sha512" && hash !== "sha256")) return null;
  const key = new SshReader(keyBlob);
  key.string();
  const publicKey = key.string();
  const signature = new SshReader(reader.string());
  if (signature.text() !== "ssh-ed25519" || !admitKey(publicKey).ok) return null;
  if (Buffer.compare(sshPublicKey(publicKey), keyBlob) !== 0) return null;
  const digest = createHash(hash).update(message).digest();
  const bytes = Buffer.concat([Buffer.from("SSHSIG"), ...[namespace, reserved, hash, digest].map(sshString)]);
  return (await verifySignature(publicKey, signature.string(), bytes)) ? didKeyOf(publicKey) : null;
}
