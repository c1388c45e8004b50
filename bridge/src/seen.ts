import { mkdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import type { Seen } from "./core/moves.ts";
import { writeDurably } from "./durable-file.ts";

const oid = z.string().regex(/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/);
/** A persisted contract: later versions read what earlier ones wrote. */
const seenSchema: z.ZodType<Seen> = z.object({
  version: z.literal(1),
  sinceAt: z.int(),
  revision: z.int(),
  remotes: z.record(z.string(), oid),
  canonical: z.record(z.string(), oid),
});

/** What the bridge has seen of each repository (`z…`), across restarts. */
export interface SeenStore {
  read(id: string): Promise<Seen | null>;
  write(id: string, seen: Seen): Promise<void>;
}

/**
 * One file per repository in `folder`, which is made. A file that cannot be read is set aside as `.unreadable`, and its repository seen as for the first
 * time: `say` tells so, because pushes of the meantime are not told then.
 */
export async function openSeen(folder: string, say: (line: string) => void): Promise<SeenStore> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  return {
    async read(id) {
      const path = join(folder, `${id}.json`);
      const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT") return null;
        throw error;
      });
      if (text === null) return null;
      const parsed = seenSchema.safeParse(parse(text));
      if (parsed.success) return parsed.data;
      await rename(path, `${path}.unreadable`);
      say(`${path} cannot be read and was set aside: rad:${id} is seen as for the first time`);
      return null;
    },
    write: (id, seen) => writeDurably(folder, `${id}.json`, JSON.stringify(seen)),
  };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
