import { mkdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { type Seen, seenSchema } from "./core/moves.ts";
import { writeDurably } from "./durable-file.ts";

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
