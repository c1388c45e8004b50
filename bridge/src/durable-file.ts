import { randomUUID } from "node:crypto";
import { open, rename } from "node:fs/promises";
import { join } from "node:path";

/** Written beside, fsynced, renamed, and the folder fsynced: after a crash the file is there whole or not at all. Private to the user. */
export async function writeDurably(folder: string, name: string, content: string): Promise<void> {
  const path = join(folder, name);
  const unfinished = `${path}.${randomUUID()}.unfinished`;
  const file = await open(unfinished, "wx", 0o600);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(unfinished, path);
  const parent = await open(folder, "r");
  try {
    await parent.sync();
  } finally {
    await parent.close();
  }
}
