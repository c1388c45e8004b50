import { Decrypter, Encrypter, generateX25519Identity, identityToRecipient } from "age-encryption";
import { parseBase64, parseUtf8, toBase64, utf8 } from "./bytes.ts";
import { describeIssues } from "./dsse.ts";
import { LIMITS } from "./limits.ts";
import { accepted, refused, type Result } from "./result.ts";
import { type SecretBinding, secretBindingSchema } from "./secrets.ts";

/**
 * Sealing with age (age-encryption.org/v1, X25519). A module of its own, because only who seals and who opens needs the cryptography: the
 * Worker and the page never do.
 */

/** A new age identity (`AGE-SECRET-KEY-1…`) and its recipient (`age1…`). */
export async function newIdentity(): Promise<{ identity: string; recipient: string }> {
  const identity = await generateX25519Identity();
  return { identity, recipient: await identityToRecipient(identity) };
}

/** The recipient of an identity. Rejects when the text is none. */
export async function recipientOf(identity: string): Promise<string> {
  return identityToRecipient(identity);
}

/**
 * Seals a value to recipients: one age file (base64) that each of them can open. Sealed are the binding, as one line of JSON, and the value
 * after it, so that neither can be had or changed without the other.
 */
export async function sealSecret(
  value: Uint8Array,
  binding: SecretBinding,
  recipients: readonly string[],
): Promise<Result<string, "too-large" | "empty">> {
  if (value.length === 0) return refused("empty", "the secret is empty");
  if (value.length > LIMITS.secretBytes)
    return refused("too-large", `the secret has ${value.length} bytes, the limit is ${LIMITS.secretBytes}`);
  const encrypter = new Encrypter();
  for (const recipient of recipients) encrypter.addRecipient(recipient);
  const head = utf8(`${JSON.stringify(binding)}\n`);
  const plain = new Uint8Array(head.length + value.length);
  plain.set(head);
  plain.set(value, head.length);
  return accepted(toBase64(await encrypter.encrypt(plain)));
}

/** Why a box gives nothing. The runner's owner may read it; the job and the broker are told one sentence for all of them. */
export type BoxRefusal = "not-sealed-to-us" | "bad-box";

/** Opens a box. What it is for is for the caller to compare with what it is asked for. */
export async function openBox(
  box: string,
  identity: string,
): Promise<Result<{ binding: SecretBinding; value: Uint8Array }, BoxRefusal>> {
  const bytes = parseBase64(box);
  if (bytes === null) return refused("bad-box", "not canonical base64");
  const decrypter = new Decrypter();
  decrypter.addIdentity(identity);
  // The library says the same for a foreign box and a damaged one, and its words may change.
  const plain = await decrypter.decrypt(bytes).catch(() => null);
  if (plain === null) return refused("not-sealed-to-us", "this runner's key does not open it");
  const end = plain.indexOf(0x0a);
  const head = end < 0 ? null : parseUtf8(plain.subarray(0, end));
  const parsed = secretBindingSchema.safeParse(head === null ? null : parseJsonOrNull(head));
  return parsed.success
    ? accepted({ binding: parsed.data, value: plain.slice(end + 1) })
    : refused("bad-box", `the binding is refused: ${describeIssues(parsed.error)}`);
}

function parseJsonOrNull(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}
