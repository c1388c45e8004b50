import { sha256Hex, utf8, refKeyOf } from "@plumule/protocol";
import type { HookEvent } from "./core/push.ts";
import type { VerifiedHook } from "./hook-verify.ts";

/** What a delivery is known by: its id, and the digest of what was sent. */
export type DeliveryKeys = { id: string; webhookId: string; bodySha256: string };

/** Derives the keys of a webhook that was verified and read. */
export async function keysOf(verified: VerifiedHook, event: HookEvent, body: Uint8Array): Promise<DeliveryKeys> {
  const bodySha256 = await sha256Hex(body);
  if (verified.id !== null)
    return { id: toUuid(await digest([verified.signer, verified.id])), webhookId: verified.id, bodySha256 };
  // A hub signature covers no id. What the push says stands in for it, so that a copy is known even when the sender words it anew.
  const content = event.kind === "push" ? await digest(contentOf(event)) : bodySha256;
  return {
    id: toUuid(await digest([verified.signer, `content ${content}`])),
    webhookId: content,
    bodySha256: content,
  };
}

function contentOf({ push, status }: Extract<HookEvent, { kind: "push" }>): string[] {
  const { before, after, number } = push;
  // Each context of a commit waits for an answer of its own; a patch whose newest revision goes back is told apart by their number.
  return [refKeyOf(push), before ?? "", after, String(number ?? ""), status?.context ?? ""];
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
