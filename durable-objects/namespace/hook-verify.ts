import {
  type Hook,
  LIMITS,
  type Millis,
  parseDidKey,
  parseWebhookSecret,
  refuse,
  type Refusal,
  utf8,
  verifyHubSignature,
  verifyWebhook,
} from "@plumule/protocol";
import type { RawHook } from "./calls.ts";

/** Who vouches for a webhook. `id` is the sender's, null when the scheme has none. */
export type VerifiedHook = { hook: string; signer: string; id: string | null; signedByKey: boolean };

/**
 * Verifies a webhook over its raw bytes, before anything reads them: Standard Webhooks when it brings their headers, else the HMAC of
 * GitHub and Radicle Garden. A hook that does not exist is refused in the words of a wrong signature.
 */
export async function verifyHook(
  hooks: readonly Hook[],
  { hook: named, headers, body }: Omit<RawHook, "audience">,
  now: Millis,
): Promise<VerifiedHook | Refusal> {
  const candidates = named === null ? hooks : hooks.filter(({ id }) => id === named);
  const header = (name: string): string | null => (Object.hasOwn(headers, name) ? (headers[name] ?? null) : null);
  const hub = header("x-hub-signature-256") ?? header("x-radicle-signature");
  return header("webhook-signature") === null && hub !== null
    ? verifyHub(candidates, hub, body)
    : verifyStandard(candidates, header, body, now);
}

async function verifyHub(hooks: readonly Hook[], signature: string, body: Uint8Array): Promise<VerifiedHook | Refusal> {
  const secrets = secretsOf(hooks);
  const matched = await verifyHubSignature(
    signature,
    body,
    secrets.map(({ text }) => utf8(text)),
  );
  const hook = matched.ok ? secrets[matched.value]?.hook : undefined;
  return hook === undefined ? badSignature() : { hook, signer: `hook:${hook}`, id: null, signedByKey: false };
}

async function verifyStandard(
  hooks: readonly Hook[],
  header: (name: string) => string | null,
  body: Uint8Array,
  now: Millis,
): Promise<VerifiedHook | Refusal> {
  const keys = hooks.flatMap(({ id, keys: dids }) =>
    (dids ?? []).flatMap((did) => {
      const parsed = parseDidKey(did);
      return parsed.ok ? [{ hook: id, did, raw: parsed.value }] : [];
    }),
  );
  const secrets = secretsOf(hooks);
  const verified = await verifyWebhook({ get: header }, body, {
    ed25519Keys: keys.map(({ raw }) => raw),
    secrets: secrets.map(({ text }) => standardSecret(text)),
    nowMs: now,
    toleranceSeconds: LIMITS.webhookToleranceSeconds,
  });
  if (!verified.ok) return refuseHeaders(verified);
  const { id, scheme, keyIndex } = verified;
  if (scheme === "v1a") {
    const key = keys[keyIndex];
    return key === undefined ? badSignature() : { hook: key.hook, signer: key.did, id, signedByKey: true };
  }
  const hook = secrets[keyIndex]?.hook;
  return hook === undefined ? badSignature() : { hook, signer: `hook:${hook}`, id, signedByKey: false };
}

function secretsOf(hooks: readonly Hook[]): { hook: string; text: string }[] {
  return hooks.flatMap(({ id, secret }) => (secret === undefined ? [] : [{ hook: id, text: secret }]));
}

/** `whsec_` and base64 is the specification's form; a secret that was made for a hub signature is taken as its characters. */
function standardSecret(text: string): Uint8Array {
  const parsed = parseWebhookSecret(text);
  return parsed.ok ? parsed.value : utf8(text);
}

function refuseHeaders({
  code,
  detail,
}: {
  code: "missing-header" | "bad-id" | "bad-timestamp" | "timestamp-out-of-window" | "no-matching-signature";
  detail: string;
}): Refusal {
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
      return refuse("timestamp-out-of-window", `${detail}.`);
    case "no-matching-signature":
      return badSignature();
  }
}

/** One answer for an unknown hook, a wrong key and a wrong signature. */
export function badSignature(): Refusal {
  return refuse("bad-signature", "No signature of this webhook verifies under a key or secret that is trusted here.");
}
