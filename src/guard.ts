import { LIMITS, refuse, type Refusal, sha256Hex, UNNAMED_PROTOCOL } from "@plumule/protocol";
import type { Guard } from "../durable-objects/deployment/calls.ts";

/**
 * Reads `Idempotency-Key` (a structured-field string, quotes optional) and `If-Match` of a request. The fingerprint is the hash of the
 * raw body: the same key with other bytes is another request.
 */
export async function guardOf(request: Request, bytes: Uint8Array): Promise<Guard | Refusal> {
  const key = request.headers.get("idempotency-key");
  const idempotencyKey = key === null ? null : key.replace(/^"(.*)"$/, "$1");
  if (idempotencyKey !== null && !new RegExp(`^[\\x21-\\x7e]{1,${LIMITS.keyCharacters}}$`).test(idempotencyKey))
    return refuse(
      "invalid-parameter",
      `An Idempotency-Key has 1 to ${LIMITS.keyCharacters} visible ASCII characters.`,
      { errors: [{ pointer: "Idempotency-Key", detail: "not a key" }] },
    );
  const ifMatch = request.headers.get("if-match");
  const revision = ifMatch === null ? null : /^"r(\d{1,15})(?:-\d{1,15})?"$/.exec(ifMatch);
  if (ifMatch !== null && revision === null)
    return refuse("invalid-parameter", 'If-Match is an ETag of this deployment, like "r17-42".', {
      errors: [{ pointer: "If-Match", detail: "not an ETag of a deployment" }],
    });
  return {
    idempotencyKey,
    bodySha256: await sha256Hex(bytes),
    ifMatch: revision === null ? null : `"r${revision[1]}"`,
  };
}

/** The version of the wire that a caller says it can read, in `Accept: application/json; plumule=2`; the first for one that does not say. */
export function acceptedProtocol(request: Request): number {
  const said = /^application\/json; ?plumule=(\d{1,4})$/.exec(request.headers.get("accept") ?? "");
  return said === null ? UNNAMED_PROTOCOL : Number(said[1]);
}
