import type { ClientDeps } from "@plumule/protocol";

/** Which namespace the page shows, and how it asks the broker. */
export type Session = { ns: string; client: ClientDeps };

const KEY = "plumule";

/**
 * Learns namespace and token: from the fragment of the address (`#ns=…&token=…`, which is then removed, so that it is neither
 * bookmarked nor shared), from this tab's memory, or from a broker on the same machine. Null when nobody tells.
 */
export async function openSession(): Promise<Session | null> {
  const given = new URLSearchParams(location.hash.slice(1));
  if (given.has("ns") && given.has("token")) {
    history.replaceState(null, "", location.pathname);
    sessionStorage.setItem(KEY, JSON.stringify({ namespace: given.get("ns"), token: given.get("token") }));
  }
  const stored = sessionStorage.getItem(KEY);
  const known: unknown = stored === null ? await askLocalBroker() : JSON.parse(stored);
  if (!isKnown(known)) return null;
  const client = {
    fetch: (url: string, init: RequestInit) => fetch(url, init),
    baseUrl: location.origin,
    bearer: known.token,
  };
  return { ns: known.namespace, client };
}

async function askLocalBroker(): Promise<unknown> {
  const response = await fetch("/.well-known/plumule-page.json");
  return response.ok ? response.json() : null;
}

function isKnown(value: unknown): value is { namespace: string; token: string } {
  return typeof value === "object" && value !== null && "namespace" in value && "token" in value;
}
