import { once } from "node:events";
import { lstat, mkdir, rm } from "node:fs/promises";
import { createConnection } from "node:net";
import { dirname } from "node:path";

/** Makes room for a unix socket. What a server that was killed has left is removed; what is in use, or no socket, is in the way: a sentence says so. */
export async function clearSocketPath(path: string): Promise<string | null> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const found = await lstat(path).catch(() => null);
  if (found === null) return null;
  if (!found.isSocket()) return `${path} is there and is no socket.`;
  const connection = createConnection({ path });
  try {
    await once(connection, "connect");
    return `Another process serves at ${path}.`;
  } catch {
    await rm(path, { force: true });
    return null;
  } finally {
    connection.destroy();
  }
}
