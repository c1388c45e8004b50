import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { didKeyOf } from "@plumule/protocol";
import { listRepositories } from "./storage.ts";
import { waitFor } from "./waiting.ts";

/** How often the node's own refs are looked at, ms; with many repositories less often, ms for each. */
const LOOK_MS = 500;
const LOOK_EACH_MS = 1;

/** The id of a node (`z6Mk…`) from its public key, a line of OpenSSH whose base64 ends with the 32 bytes of the key (RFC 8709). Null when it has none. */
export async function readNodeId(radHome: string): Promise<string | null> {
  const line = await readFile(join(radHome, "keys", "radicle.pub"), "utf8").catch(() => "");
  const [, base64] = /^ssh-ed25519 (\S+)/.exec(line) ?? [];
  const bytes = base64 === undefined ? null : Buffer.from(base64, "base64");
  return bytes?.length === 51 ? didKeyOf(new Uint8Array(bytes.subarray(19))).slice("did:key:".length) : null;
}

/**
 * Calls `onMove` with a repository (`z…`) in which the node's own signed refs have moved. `git push rad` tells the node of a push, which then makes an event, only
 * when it knows a seed to which it could be announced: beside a node that is alone there is none. What moved, a look finds out. Resolves when
 * the signal aborts. Never rejects.
 */
export async function watchOwnPushes(
  radHome: string,
  { onMove, signal }: { onMove: (id: string) => void; signal: AbortSignal },
): Promise<void> {
  const storage = join(radHome, "storage");
  let known: ReadonlyMap<string, number> | null = null;
  let node: string | null = null;
  while (!signal.aborted) {
    // Until the node has a key; after that it keeps it.
    node ??= await readNodeId(radHome);
    const ids = node === null ? [] : await listRepositories(storage).catch(() => []);
    const now = new Map<string, number>();
    for (const id of ids) {
      const movedAt = await stat(join(storage, id, "refs/namespaces", node ?? "", "refs/rad/sigrefs")).then(
        ({ mtimeMs }) => mtimeMs,
        // It is where git has packed it: the next push writes it here again.
        () => null,
      );
      if (movedAt === null) continue;
      now.set(id, movedAt);
      if (known !== null && known.get(id) !== movedAt) onMove(id);
    }
    known = now;
    await waitFor(Math.max(LOOK_MS, LOOK_EACH_MS * ids.length), signal);
  }
}
