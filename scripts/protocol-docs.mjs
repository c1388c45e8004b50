/**
 * Writes the tables of docs/protocol.md from the protocol: endpoints, errors, limits. With `--check` it only says whether they are up to date.
 * Runs under Node 24, which reads the protocol's TypeScript as it is.
 */
import { readFile, writeFile } from "node:fs/promises";
import { ENDPOINTS, ERRORS, LIMITS } from "@plumule/protocol";

const path = new URL("../docs/protocol.md", import.meta.url);

/** A Markdown table. A bar would end the cell. */
function table(head, rows) {
  const line = (cells) => `| ${cells.map((cell) => String(cell).replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

const tables = {
  endpoints: table(
    ["method", "path", "access", "for"],
    Object.values(ENDPOINTS).map(({ method, path: route, access, summary }) => [
      method.toUpperCase(),
      `\`${route}\``,
      access,
      summary,
    ]),
  ),
  errors: table(
    ["code", "status", "meaning", "next"],
    Object.entries(ERRORS).map(([code, { status, title, next }]) => [`\`${code}\``, status, title, next]),
  ),
  limits: table(
    ["limit", "value"],
    Object.entries(LIMITS).map(([name, value]) => [`\`${name}\``, value]),
  ),
};

const before = await readFile(path, "utf8");
const after = Object.entries(tables).reduce(
  (text, [name, content]) =>
    text.replace(
      new RegExp(`(<!-- generated: ${name} -->\\n)[^]*?(<!-- /generated -->)`),
      (_, open, close) => `${open}\n${content}\n\n${close}`,
    ),
  before,
);
if (!process.argv.includes("--check")) await writeFile(path, after);
else if (after !== before) {
  process.stderr.write("docs/protocol.md is out of date: run `node scripts/protocol-docs.mjs`\n");
  process.exitCode = 1;
}
