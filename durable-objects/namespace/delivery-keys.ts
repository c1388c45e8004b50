import { type Push, sha256Hex, utf8 } from "@plumule/protocol";
import type { HookEvent } from "./core/push.ts";
import { repositoryKey } from "./core/triggers.ts";
import type { VerifiedHook } from "./hook-verify.ts";

/** What a delivery is known by: its id, the digest of what was sent, and the push itself and its predecessor on the same ref. */
export type DeliveryKeys = {
  id: string;
  webhookId: string;
  bodySha256: string;
  push: string | null;
  before: string | null;
};

/** Derives the keys of a webhook that was verified and read. */
export async function keysOf(verified: VerifiedHook, event: HookEvent, body: Uint8Array): Promise<DeliveryKeys> {
  const push = event.kind === "push" ? event.push : null;
  const bodySha256 = await sha256Hex(body);
  // A hub signature covers no id. What the push says stands in for it, so that a copy is known even when the sender words it anew.
  const content =
    push === null
      ? bodySha256
      : await digest([repositoryKey(push.repository), push.ref, push.before ?? "", push.after]);
  return {
    id: toUuid(await digest([verified.signer, verified.id ?? `content ${content}`])),
    webhookId: verified.id ?? content,
    bodySha256: verified.id === null ? content : bodySha256,
    push: push === null ? null : await pushKey(push, push.after),
    before: push?.before == null ? null : await pushKey(push, push.before),
  };
}

function pushKey({ repository, ref }: Push, commit: string): Promise<string> {
  return digest([repositoryKey(repository), ref, commit]);
}

/** The digest of a list of texts; JSON keeps them apart. */
function digest(parts: readonly string[]): Promise<string> {
  return sha256Hex(utf8(JSON.stringify(parts)));
}

/** The first 128 bits of a digest in the form of a UUID (version 8, RFC 9562: made as its maker likes). */
function toUuid(hex: string): string {
  const variant = ((Number.parseInt(hex.slice(16, 17), 16) & 0x3) | 0x8).toString(16);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}
