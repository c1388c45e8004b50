import { refuse, type Refusal } from "@plumule/protocol";

/** The lists of a namespace; a cursor of one is no cursor of another. */
export type ListName = "namespaces" | "runners" | "deliveries" | "deployments" | "jobs" | "audit" | "locks";

/** The cursor behind an item: the list and the item's key, in base64url, opaque to clients. Keys are ASCII. */
export function formatPosition(list: ListName, key: string): string {
  return btoa(`${list}:${key}`).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** The key that a cursor stands for, null for none, or a refusal when it is not a cursor of this list. */
export function parsePosition(list: ListName, cursor: string | null): { key: string | null } | Refusal {
  if (cursor === null) return { key: null };
  const text = /^[A-Za-z0-9_-]{1,400}$/.test(cursor) ? decode(cursor) : "";
  return text.startsWith(`${list}:`)
    ? { key: text.slice(list.length + 1) }
    : refuse("invalid-cursor", `This is not a cursor of the list of ${list}.`);
}

function decode(cursor: string): string {
  try {
    return atob(cursor.replaceAll("-", "+").replaceAll("_", "/"));
  } catch {
    return "";
  }
}
