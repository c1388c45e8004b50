import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readRepositorySteps } from "../../runner/src/task-file.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const documents = [
  "README.md",
  "ARCHITECTURE.md",
  "CONTRIBUTING.md",
  ...readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
];
const textOf = (document: string): string => readFileSync(join(root, document), "utf8");
/** The code blocks of a document, by language. */
const blocks = (document: string, language: string): string[] =>
  [...textOf(document).matchAll(new RegExp(`\`\`\`${language}\\n([^]*?)\`\`\``, "g"))].map(([, block]) => block ?? "");

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "plumule-docs-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe.each(documents)("%s", (document) => {
  it("links only to what is there", () => {
    const links = [...textOf(document).matchAll(/\]\(([^)#\s]+)[^)]*\)/g)]
      .map(([, link]) => link ?? "")
      .filter((link) => !/^[a-z]+:/.test(link));
    expect(links.filter((link) => !existsSync(join(root, dirname(document), link)))).toEqual([]);
  });
});

it("names tests of the promises that are there", () => {
  const named = [...textOf("ARCHITECTURE.md").matchAll(/`((?:unit|workers|e2e)\/[a-z-]+)`/g)].map(
    ([, name]) => `test/${name}.test.ts`,
  );
  expect(named.length).toBeGreaterThan(20);
  expect(named.filter((file) => !existsSync(join(root, file)))).toEqual([]);
});

it("shows a task file that the runner reads as described", async () => {
  const [example = ""] = blocks("docs/runner.md", "yaml");
  execFileSync("mkdir", [join(folder, ".radicle")]);
  writeFileSync(join(folder, ".radicle/plumule.yaml"), example);
  expect(await readRepositorySteps(folder, undefined)).toMatchObject({
    found: ".radicle/plumule.yaml",
    steps: [
      { name: "lint", task: { kind: "shell", develop: "." } },
      { name: "build", task: { installables: [".#default", ".#docs"] } },
    ],
  });
});
