import { equalBytes, parseHex, sha256Hex, utf8 } from "@plumule/protocol";

const LETTERS_AND_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const LOWER_AND_DIGITS = "abcdefghijklmnopqrstuvwxyz0123456789";

/** What a credential is for, told by its prefix: `plm` a token, `plr` a runner's registration. The prefix serves secret scanners. */
export type CredentialKind = "plm" | "plr";

/** A credential that was just made. `text` is shown once; only `id` and `hash` are stored. */
export type Minted = { id: string; text: string; hash: string };

/** Makes `<kind>_<id>_<secret>`: 12 characters to look it up by, 43 (256 bits) that nobody can guess. */
export async function mintCredential(kind: CredentialKind): Promise<Minted> {
  const id = randomText(LOWER_AND_DIGITS, 12);
  const text = `${kind}_${id}_${randomSecret()}`;
  return { id, text, hash: await hashCredential(text) };
}

/** A secret of 43 letters and digits, 256 bits. */
export function randomSecret(): string {
  return randomText(LETTERS_AND_DIGITS, 43);
}

/** The id inside a credential of this kind, or null when it has not the form of one. */
export function credentialId(kind: CredentialKind, text: string): string | null {
  const match = /^(plm|plr)_([a-z0-9]{12})_[A-Za-z0-9]{43}$/.exec(text);
  return match?.[1] === kind ? (match[2] ?? null) : null;
}

/** Whose session a bearer is: `pls` a runner's, `plu` of a person who logged in. */
export type SessionKind = "pls" | "plu";

/** Makes the bearer of a session, `<kind>_<key>_<secret>`: the key of the did:key finds the few sessions of its owner. */
export async function mintSession(kind: SessionKind, key: string): Promise<{ text: string; hash: string }> {
  const text = `${kind}_${key.slice("did:key:".length)}_${randomSecret()}`;
  return { text, hash: await hashCredential(text) };
}

/** The did:key that a session's bearer names, or null when it has not the form of one of this kind. */
export function sessionKey(kind: SessionKind, text: string): string | null {
  const match = /^(pls|plu)_(z6Mk[1-9A-HJ-NP-Za-km-z]{44})_[A-Za-z0-9]{43}$/.exec(text);
  return match?.[1] === kind ? `did:key:${match[2]}` : null;
}

/** The SHA-256 under which a credential is stored. It needs no salt: the secret is random and longer than any guess. */
export function hashCredential(text: string): Promise<string> {
  return sha256Hex(utf8(text));
}

/** Compares two hashes without telling by the time where they differ. */
export function sameHash(left: string, right: string): boolean {
  const [a, b] = [parseHex(left), parseHex(right)];
  return a !== null && b !== null && equalBytes(a, b);
}

/** Random characters of an alphabet, each as likely as the other: bytes that would favour the first ones are thrown away. */
function randomText(alphabet: string, length: number): string {
  const fair = 256 - (256 % alphabet.length);
  let text = "";
  while (text.length < length) {
    for (const byte of crypto.getRandomValues(new Uint8Array(64))) {
      if (byte < fair && text.length < length) text += alphabet[byte % alphabet.length];
    }
  }
  return text;
}
