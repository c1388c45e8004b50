import { readFile, writeFile } from "node:fs/promises";

/**
 * Replaces what stands between `<!-- bench: name -->` and `<!-- /bench -->` in a document, for each name given. The words around it are
 * written by hand. Throws when a document lacks a place.
 */
export async function fillDocument(path: string, parts: Readonly<Record<string, string>>): Promise<void> {
  let text = await readFile(path, "utf8");
  for (const [name, part] of Object.entries(parts)) {
    const begin = `<!-- bench: ${name} -->`;
    const from = text.indexOf(begin);
    const to = text.indexOf("<!-- /bench -->", from);
    if (from === -1 || to === -1) throw new Error(`${path} has no place for ${name}`);
    text = `${text.slice(0, from + begin.length)}\n\n${part}\n\n${text.slice(to)}`;
  }
  await writeFile(path, text);
}
