import * as z from "zod";
import { encodeBase58, parseDidKey } from "./did-key.ts";
import { verifySignature } from "./ed25519.ts";

/** The refs of one node, or of the repository itself, by their names without a namespace: `refs/heads/main` to a commit id. */
export type RefTable = ReadonlyMap<string, string>;

/** A repository of Radicle as a URL names it: `z…`, without `rad:`, and the node whose refs are meant, or null for those of the repository. */
export type RadicleName = { id: string; node: string | null };

/** Reads `rad:z…`, `rad://z…` and `rad://z…/z6Mk…`; null for every other URL. */
export function parseRadicleUrl(url: string): RadicleName | null {
  const [, id, node] =
    /^rad:(?:\/\/)?(z[1-9A-HJ-NP-Za-km-z]{20,64})(?:\/(z6Mk[1-9A-HJ-NP-Za-km-z]{44}))?$/.exec(url) ?? [];
  return id === undefined ? null : { id, node: node ?? null };
}

/** The id of the repository whose first identity document is the git blob `oid` (hex): `z` and its base58btc. */
export function repositoryIdOf(oid: string): string {
  return `z${encodeBase58(oid)}`;
}

/** The path of the identity document in the tree of a commit of `refs/rad/id`. */
export const IDENTITY_PATH = "embeds/radicle.json";

/** An identity document, as far as it says who may do what (radicle's `identity/doc.rs`); without `visibility` it is public. */
export const identityDocumentSchema = z.looseObject({
  delegates: z.array(z.string()).min(1).max(255),
  threshold: z.int().min(1),
  visibility: z.looseObject({ type: z.string(), allow: z.array(z.string()).optional() }).optional(),
});
export type IdentityDocument = z.output<typeof identityDocumentSchema>;

/** Whether a repository may be seen by chosen nodes alone. What is not known to be public is private. */
export function isPrivate({ visibility }: IdentityDocument): boolean {
  return visibility !== undefined && visibility.type !== "public";
}

/** Whether a node may have refs in a repository: in a public one everybody, in a private one delegates and those whom it allows. */
export function mayPush(document: IdentityDocument, did: string): boolean {
  return (
    !isPrivate(document) ||
    document.delegates.includes(did) ||
    (document.visibility?.type === "private" && document.visibility.allow?.includes(did) === true)
  );
}

/**
 * Reads the blob `refs` of a commit of `refs/rad/sigrefs`: lines `<oid> SP <ref> LF`. Null for anything else. Entries below `refs/rad/` are in
 * it too: `refs/rad/root` names the repository, and since Radicle 1.7 `refs/rad/sigrefs-parent` the commit before, so that neither
 * can be copied elsewhere.
 */
export function parseSignedRefs(text: string): RefTable | null {
  const table = new Map<string, string>();
  if (text !== "" && !text.endsWith("\n")) return null;
  for (const line of text.split("\n").slice(0, -1)) {
    const [, oid, ref] = /^([0-9a-f]{40}|[0-9a-f]{64}) (refs\/[^\s\p{Cc}]+)$/u.exec(line) ?? [];
    if (oid === undefined || ref === undefined) return null;
    table.set(ref, oid);
  }
  return table;
}

/** Whether a node (`z6Mk…`) has signed these bytes of a blob `refs`: the blob `signature` is plain Ed25519 over them. */
export async function verifySignedRefs(node: string, refs: Uint8Array, signature: Uint8Array): Promise<boolean> {
  const key = parseDidKey(`did:key:${node}`);
  return key.ok && verifySignature(key.value, signature, refs);
}
