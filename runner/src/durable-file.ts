import { open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";

/** The end of the name of a file that was being written; whoever finds one after a crash may remove it. */
export const UNFINISHED_SUFFIX = ".unfinished";

/**
 * Writes a whole file so that after a crash, even of the machine, it has either its old or its new content: write beside it, fsync,
 * rename, fsync the folder. The file is private to the user. Rejects when the disk does, and leaves nothing then.
 */
export async function writeDurably(path: string, content: string | Uint8Array): Promise<void> {
  const unfinished = `${path}${UNFINISHED_SUFFIX}`;
  try {
    const file = await open(unfinished, "w", 0o600);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(unfinished, path);
  } catch (error) {
    await rm(unfinished, { force: true });
    throw error;
  }
  await syncFolder(dirname(path));
}

/** Removes a file for good: a removal that the disk has not seen would deliver a result twice after a crash. */
export async function removeDurably(path: string): Promise<void> {
  await rm(path, { force: true });
  await syncFolder(dirname(path));
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
