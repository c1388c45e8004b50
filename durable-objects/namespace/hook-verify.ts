import {
  isValidAt,
  LIMITS,
  type Millis,
  parseDidKey,
  parseWebhookSecret,
  refuse,
  type Refusal,
  type Refused,
  utf8,
  verifyHubSignature,
  verifyWebhook,
  type WebhookRefusal,
} from "@plumule/protocol";
import type { RawHook } from "./calls.ts";
import type { StoredHook } from "./core/hooks.ts";

/** Who vouches for a webhook. `id` is the sender's, null when the scheme has none; `secret` the name of the one that matched, null under a key. */
export type VerifiedHook = { hook: string; signer: string; id: string | null; secret: string | null };

/**
 * Verifies a webhook over its raw bytes, before anything reads them: Standard Webhooks when it brings their headers, else the HMAC of
 * GitHub and Radicle Garden. A hook that does not exist, and a key that is not valid now, are refused in the words of a wrong signature.
 */
export async function verifyHook(
  hooks: readonly StoredHook[],
  { hook: named, headers, body }: Omit<RawHook, "audience">,
  now: Millis,
): Promise<VerifiedHook | Refusal> {
  const candidates = named === null ? hooks : hooks.filter(({ id }) => id === named);
  const header = (name: string): string | null => (Object.hasOwn(headers, name) ? (headers[name] ?? null) : null);
  const hub = header("x-hub-signature-256") ?? header("x-radicle-signature");
  return header("webhook-signature") === null && hub !== null
    ? verifyHub(candidates, hub, body, now)
    : verifyStandard(candidates, header, body, now);
}

async function verifyHub(
  hooks: readonly StoredHook[],
  signature: string,
  body: Uint8Array,
  now: Millis,
): Promise<VerifiedHook | Refusal> {
  const secrets = secretsOf(hooks, now);
  const matched = await verifyHubSignature(
    signature,
    body,
    secrets.map(({ text }) => utf8(text)),
  );
  const secret = matched.ok ? secrets[matched.value] : undefined;
  return secret === undefined ? badSignature() : { ...vouchedBy(secret), id: null };
}

async function verifyStandard(
  hooks: readonly StoredHook[],
  header: (name: string) => string | null,
  body: Uint8Array,
  now: Millis,
): Promise<VerifiedHook | Refusal> {
  const keys = keysOf(hooks, now);
  const secrets = secretsOf(hooks, now);
  const verified = await verifyWebhook({ get: header }, body, {
    ed25519Keys: keys.map(({ raw }) => raw),
    secrets: secrets.map(({ text }) => standardSecret(text)),
    nowMs: now,
    toleranceSeconds: LIMITS.webhookToleranceSeconds,
  });
  if (!verified.ok) return refuseHeaders(verified, now);
  const { id, scheme, keyIndex } = verified;
  if (scheme === "v1a") {
    const key = keys[keyIndex];
    return key === undefined ? badSignature() : { hook: key.hook, signer: key.did, id, secret: null };
  }
  const secret = secrets[keyIndex];
  return secret === undefined ? badSignature() : { ...vouchedBy(secret), id };
}

/** All secrets of a hook are one signer: what came under the old one is known under the new one. */
function vouchedBy({ hook, name }: UsableSecret): Omit<VerifiedHook, "id"> {
  return { hook, signer: `hook:${hook}`, secret: name };
}

type UsableKey = { hook: string; did: string; raw: Uint8Array };
type UsableSecret = { hook: string; name: string; text: string };

function keysOf(hooks: readonly StoredHook[], now: Millis): UsableKey[] {
  return hooks.flatMap(({ id, keys, signers }) => {
    const valid = (signers ?? []).filter((signer) => isValidAt(signer, now)).map(({ key }) => key);
    return [...(keys ?? []), ...valid].flatMap((did) => {
      const parsed = parseDidKey(did);
      return parsed.ok ? [{ hook: id, did, raw: parsed.value }] : [];
    });
  });
}

function secretsOf(hooks: readonly StoredHook[], now: Millis): UsableSecret[] {
  return hooks.flatMap(({ id, secrets }) =>
    secrets.filter((secret) => isValidAt(secret, now)).map(({ name, secret }) => ({ hook: id, name, text: secret })),
  );
}

/** `whsec_` and base64 is the specification's form; a secret that was made for a hub signature is taken as its characters. */
function standardSecret(text: string): Uint8Array {
  const parsed = parseWebhookSecret(text);
  return parsed.ok ? parsed.value : utf8(text);
}

function refuseHeaders({ code, detail }: Refused<WebhookRefusal>, now: Millis): Refusal {
  switch (code) {
    case "missing-header":
      return refuse("missing-header", `${detail}; or X-Hub-Signature-256.`, {
        errors: [{ pointer: "webhook-signature", detail: "is missing, or one of its companions is" }],
      });
    case "bad-id":
      return refuse("invalid-parameter", "A header is not valid.", { errors: [{ pointer: "webhook-id", detail }] });
    case "bad-timestamp":
      return refuse("invalid-parameter", "A header is not valid.", {
        errors: [{ pointer: "webhook-timestamp", detail }],
      });
    case "timestamp-out-of-window":
      return refuse("timestamp-out-of-window", `${detail}.`, { headers: { Date: new Date(now).toUTCString() } });
    case "no-matching-signature":
      return badSignature();
  }
}

/** One answer for an unknown hook, a wrong key and a wrong signature. */
export function badSignature(): Refusal {
  return refuse("bad-signature", "No signature of this webhook verifies under a key or secret that is trusted here.");
}
