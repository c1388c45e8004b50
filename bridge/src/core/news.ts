import { parseRadicleUrl } from "@plumule/protocol";

/** What a line of a node's control socket asks for: a look at a repository (`z…`), or nothing, in words why. */
export type News = { event: string; look: string } | { event: string; look: null; why: string };

/** Events that say that refs of a repository may have moved in the storage of this node. */
const TELLING = new Set(["refsFetched", "localRefsAnnounced", "canonicalRefUpdated"]);

/** Why the other events of Radicle (radicle's `node/events.rs`, 0.20 to 0.25) start nothing. */
const SILENT: Readonly<Record<string, string>> = {
  refsAnnounced: "a peer has announced refs, which are not fetched yet",
  refsSynced: "a peer has fetched what this node has",
  seedDiscovered: "it tells who has a repository",
  seedDropped: "it tells who has a repository",
  inventoryAnnounced: "it tells who has a repository",
  peerConnected: "it is about a peer, not about refs",
  peerDisconnected: "it is about a peer, not about refs",
  nodeAnnounced: "it is about a peer, not about refs",
  uploadPack: "a peer fetches from this node",
};

/**
 * Reads one line. Of an event only its repository counts: what moved is read from the storage, whose signed history has every push, also those
 * whose events were lost. Events that later nodes add start nothing.
 */
export function readNews(line: string): News {
  const value = parse(line);
  if (value === null) return { event: "?", look: null, why: "it is no JSON object" };
  if (typeof value["error"] === "string") return { event: "error", look: null, why: value["error"] };
  const event = typeof value["type"] === "string" ? value["type"] : "?";
  if (!TELLING.has(event))
    return { event, look: null, why: SILENT[event] ?? "this version of the bridge does not know the event" };
  const rid = typeof value["rid"] === "string" ? parseRadicleUrl(value["rid"]) : null;
  if (rid === null) return { event, look: null, why: "it names no repository" };
  const { updated } = value;
  if (event === "refsFetched" && Array.isArray(updated) && updated.every(isSkipped))
    return { event, look: null, why: "the fetch has moved nothing" };
  return { event, look: rid.id };
}

function isSkipped(update: unknown): boolean {
  return typeof update === "object" && update !== null && "skipped" in update;
}

function parse(line: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : null;
  } catch {
    return null;
  }
}
