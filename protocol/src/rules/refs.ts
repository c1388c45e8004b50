import type { Push } from "../namespace.ts";

/**
 * What the pushes to one ref are ordered by. On Radicle every author has refs of their own under the same names, which say nothing about those of
 * others: only delegates share theirs, because the repository's ref is what they agree on.
 */
export function refKeyOf(push: Push): string {
  const author = push.author == null ? null : didOf(push.author);
  const isOfAll = author === null || !isDid(author) || push.delegates?.includes(author) === true;
  return [repositoryKey(push.repository), push.ref, ...(isOfAll ? [] : [author])].join(" ");
}

/** One spelling per repository: `https` URLs are the same with and without a trailing slash or `.git`. */
export function repositoryKey(url: string): string {
  return url.startsWith("https:") ? url.replace(/\/+$/, "").replace(/\.git$/, "") : url;
}

/** Radicle writes a person as a did:key or as its bare node id. */
export function didOf(person: string): string {
  return /^z6Mk[1-9A-HJ-NP-Za-km-z]*$/.test(person) ? `did:key:${person}` : person;
}

/** True for a person of Radicle, false for a login of another host. */
export function isDid(person: string): boolean {
  return person.startsWith("did:");
}
