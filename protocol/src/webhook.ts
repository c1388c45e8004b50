import { equalBytes, parseBase64, parseHex, toBase64, unshared, utf8 } from "./bytes.ts";
import { type Signer, verifySignature } from "./ed25519.ts";
import { accepted, refused, type Refused, type Result } from "./result.ts";
import { TRUST_LIMITS } from "./trust-limits.ts";

/** The three headers of Standard Webhooks 1.0.0. */
export type WebhookHeaders = { "webhook-id": string; "webhook-timestamp": string; "webhook-signature": string };

/** No dot, which separates the signed parts: with one, another id, time and body could have the same signed bytes. */
const ID = new RegExp(`^[A-Za-z0-9_-]{1,${TRUST_LIMITS.webhookIdCharacters}}$`);
/** Seconds since 1970 with ten digits; `parseInt` would take `1700000000abc`. */
const TIMESTAMP = /^[1-9]\d{9}$/;

/**
 * Signs a webhook by Standard Webhooks: `v1a` (Ed25519) with a signer, `v1` (HMAC-SHA256) with a secret. The id is the same for every
 * attempt, the time is that of this attempt. Throws a RangeError for an id or time that no verifier would take.
 */
export async function signWebhook(
  message: { id: string; timestampSeconds: number; body: Uint8Array } & ({ signer: Signer } | { secret: Uint8Array }),
): Promise<WebhookHeaders> {
  const timestamp = String(message.timestampSeconds);
  if (!ID.test(message.id)) throw new RangeError("a webhook id has 1 to 128 of A-Z, a-z, 0-9, _ and -");
  if (!TIMESTAMP.test(timestamp)) throw new RangeError("a webhook timestamp is in whole seconds since 1970");
  const content = signedContent(message.id, timestamp, message.body);
  const signature =
    "signer" in message
      ? `v1a,${toBase64(await message.signer.sign(content))}`
      : `v1,${toBase64(await hmacSha256(message.secret, content))}`;
  return { "webhook-id": message.id, "webhook-timestamp": timestamp, "webhook-signature": signature };
}

/** The keys that are trusted now, and the clock. `ed25519Keys` are raw keys that were admitted (`admitKey`). */
export type WebhookTrust = {
  ed25519Keys: readonly Uint8Array[];
  secrets: readonly Uint8Array[];
  nowMs: number;
  toleranceSeconds: number;
};

export type WebhookRefusal =
  | "missing-header"
  | "bad-id"
  | "bad-timestamp"
  | "timestamp-out-of-window"
  | "no-matching-signature";

/** Which scheme and which key, by its place in its list, vouch for the webhook. `id` is the dedupe key together with the signer. */
export type VerifiedWebhook = {
  ok: true;
  id: string;
  timestampSeconds: number;
  scheme: "v1a" | "v1";
  keyIndex: number;
};

/**
 * Verifies a webhook over the raw bytes of its body, before anything parses them. One matching signature of those listed is enough, so
 * that senders can rotate keys. A wrong key and a wrong signature give the same refusal.
 */
export async function verifyWebhook(
  headers: { get: (name: string) => string | null },
  body: Uint8Array,
  trust: WebhookTrust,
): Promise<VerifiedWebhook | Refused<WebhookRefusal>> {
  const id = headers.get("webhook-id");
  const timestamp = headers.get("webhook-timestamp");
  const list = headers.get("webhook-signature");
  if (id === null || timestamp === null || list === null)
    return refused("missing-header", "webhook-id, webhook-timestamp and webhook-signature are needed");
  if (!ID.test(id))
    return refused("bad-id", `webhook-id must have 1 to ${TRUST_LIMITS.webhookIdCharacters} of A-Z, a-z, 0-9, _ and -`);
  if (!TIMESTAMP.test(timestamp))
    return refused("bad-timestamp", "webhook-timestamp must be seconds since 1970, ten digits");
  const timestampSeconds = Number(timestamp);
  const nowSeconds = Math.floor(trust.nowMs / 1000);
  if (Math.abs(nowSeconds - timestampSeconds) > trust.toleranceSeconds) {
    return refused(
      "timestamp-out-of-window",
      `webhook-timestamp ${timestamp} is more than ${trust.toleranceSeconds} s from the time here, ${nowSeconds}`,
    );
  }
  const match = await matchSignature(list, signedContent(id, timestamp, body), trust);
  return match === null
    ? refused("no-matching-signature", "no signature verifies under a trusted key")
    : { ok: true, id, timestampSeconds, ...match };
}

async function matchSignature(
  list: string,
  content: Uint8Array,
  { ed25519Keys, secrets }: WebhookTrust,
): Promise<{ scheme: "v1a" | "v1"; keyIndex: number } | null> {
  const entries = list.split(" ");
  if (entries.length > TRUST_LIMITS.signatures) return null;
  const signaturesOf = (scheme: "v1a" | "v1"): Uint8Array[] =>
    entries
      .filter((entry) => entry.startsWith(`${scheme},`))
      .map((entry) => parseBase64(entry.slice(scheme.length + 1)))
      .filter((signature) => signature !== null);
  const signed = signaturesOf("v1a");
  for (const [keyIndex, key] of ed25519Keys.entries()) {
    for (const signature of signed)
      if (await verifySignature(key, signature, content)) return { scheme: "v1a", keyIndex };
  }
  const authenticated = signaturesOf("v1");
  if (authenticated.length === 0) return null;
  for (const [keyIndex, secret] of secrets.entries()) {
    const mac = await hmacSha256(secret, content);
    if (authenticated.some((signature) => equalBytes(signature, mac))) return { scheme: "v1", keyIndex };
  }
  return null;
}

/**
 * Verifies `X-Hub-Signature-256` (`sha256=<hex>`, GitHub) or `x-radicle-signature` (the same or bare hex): HMAC-SHA256 of the body. It
 * covers neither a time nor an id, so that a copy can be replayed for ever: the caller must dedupe by content. The value is the place of
 * the secret that matched.
 */
export async function verifyHubSignature(
  header: string | null,
  body: Uint8Array,
  secrets: readonly Uint8Array[],
): Promise<Result<number, "missing-header" | "no-matching-signature">> {
  if (header === null) return refused("missing-header", "X-Hub-Signature-256 or x-radicle-signature is needed");
  const signature = parseHex(header.startsWith("sha256=") ? header.slice("sha256=".length) : header);
  for (const [keyIndex, secret] of secrets.entries()) {
    if (signature !== null && equalBytes(signature, await hmacSha256(secret, body))) return accepted(keyIndex);
  }
  return refused("no-matching-signature", "the signature does not verify under a trusted secret");
}

/** The bytes of a shared secret, `whsec_` and base64 of 24 to 64 bytes. */
export function parseWebhookSecret(text: string): Result<Uint8Array, "bad-secret"> {
  const bytes = text.startsWith("whsec_") ? parseBase64(text.slice("whsec_".length)) : null;
  const { webhookSecretMinBytes: least, webhookSecretMaxBytes: most } = TRUST_LIMITS;
  return bytes !== null && bytes.length >= least && bytes.length <= most
    ? accepted(bytes)
    : refused("bad-secret", `a webhook secret is \`whsec_\` and the base64 of ${least} to ${most} bytes`);
}

function signedContent(id: string, timestamp: string, body: Uint8Array): Uint8Array<ArrayBuffer> {
  const head = utf8(`${id}.${timestamp}.`);
  const content = new Uint8Array(head.length + body.length);
  content.set(head);
  content.set(body, head.length);
  return content;
}

/** HMAC-SHA256 of a message under a shared secret. */
export async function hmacSha256(secret: Uint8Array, content: Uint8Array): Promise<Uint8Array> {
  const key = await crypto.subtle.importKey("raw", unshared(secret), { name: "HMAC", hash: "SHA-256" }, false, [
    "sign",
  ]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, unshared(content)));
}
