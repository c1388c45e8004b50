/**
 * Writes docs/plumule.schema.json, the JSON Schema of the task file, from the protocol. With `--check` it only says whether it is up to date.
 * Runs under Node 24, which reads the protocol's TypeScript as it is.
 */
import { readFile, writeFile } from "node:fs/promises";
import { taskFileJsonSchema } from "@plumule/protocol";

const path = new URL("../docs/plumule.schema.json", import.meta.url);
const text = `${JSON.stringify(taskFileJsonSchema(), null, 2)}\n`;
if (!process.argv.includes("--check")) await writeFile(path, text);
else if ((await readFile(path, "utf8").catch(() => null)) !== text) {
  process.stderr.write("docs/plumule.schema.json is out of date: run `node scripts/task-file-schema.mjs`\n");
  process.exitCode = 1;
}
