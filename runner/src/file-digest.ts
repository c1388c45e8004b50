import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";

/** SHA-256 of a file in hex; undefined when it cannot be read. */
export async function fileDigest(path: string): Promise<string | undefined> {
  const bytes = await readFile(path).catch(() => null);
  return bytes === null ? undefined : createHash("sha256").update(bytes).digest("hex");
}
