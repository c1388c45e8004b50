import { createPrivateKey, createPublicKey, sign } from "node:crypto";
import { open } from "node:fs/promises";
import { accepted, refused, type Result, type Signer } from "@plumule/protocol";

/**
 * The signer of a key file: an Ed25519 key as PKCS #8 in PEM (`openssl genpkey -algorithm ed25519`, `plumule key new`). Refused when others
 * may read it, because whoever copied it can push in this repository's name.
 */
export async function loadSigner(path: string): Promise<Result<Signer, "no-key" | "permissions" | "format">> {
  const file = await open(path, "r").catch((error: NodeJS.ErrnoException) => error);
  if (file instanceof Error) return refused("no-key", `the key ${path} cannot be read (${file.code})`);
  try {
    const { mode } = await file.stat();
    if ((mode & 0o077) !== 0) return refused("permissions", `others may read ${path}; run chmod 600 on it`);
    const key = createPrivateKey({ key: await file.readFile("utf8"), format: "pem" });
    if (key.asymmetricKeyType !== "ed25519") return refused("format", `${path} holds no Ed25519 key`);
    const { x } = createPublicKey(key).export({ format: "jwk" });
    return accepted({
      publicKey: new Uint8Array(Buffer.from(x ?? "", "base64url")),
      sign: async (message) => new Uint8Array(sign(null, message, key)),
    });
  } catch {
    // The parser's own message could quote the key.
    return refused("format", `${path} is no private key in PEM`);
  } finally {
    await file.close();
  }
}
