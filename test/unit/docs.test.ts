import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { stripVTControlCharacters } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { triggersBodySchema } from "@plumule/protocol";
import { checkTriggers } from "../../durable-objects/namespace/core/settings.ts";
import { faultLines, scheduledFor, scheduleLines, stepLines } from "../../cli/src/commands/lint.ts";
import { readRepositorySteps, readTaskFile } from "../../runner/src/task-file/read.ts";

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

describe("docs/task-file.md", () => {
  const path = ".radicle/plumule.yaml";
  const [shown = "", wrong = ""] = blocks("docs/task-file.md", "console");
  const plain = (lines: readonly string[]): string =>
    stripVTControlCharacters(["$ plumule lint", ...lines, ""].join("\n"));

  it("shows a file and the steps that it is", () => {
    const [example = ""] = blocks("docs/task-file.md", "yaml");
    const reading = readTaskFile(path, example);
    expect(reading).toHaveProperty("steps");
    if ("steps" in reading) expect(shown).toBe(plain(stepLines(path, reading.steps)));
  });

  it("shows steps that become jobs, with what each asks for", () => {
    const [, example = ""] = blocks("docs/task-file.md", "yaml");
    const [, , expanded] = blocks("docs/task-file.md", "console");
    const reading = readTaskFile(path, example);
    expect(reading).toHaveProperty("expansion");
    if ("steps" in reading) expect(expanded).toBe(plain(stepLines(path, reading.steps, true)));
  });

  it("shows when schedules fire", () => {
    const [, , example = ""] = blocks("docs/task-file.md", "yaml");
    const [, , , scheduled] = blocks("docs/task-file.md", "console");
    const reading = readTaskFile(path, example);
    expect(reading).toHaveProperty("schedules");
    if (!("schedules" in reading)) return;
    const times = scheduleLines(scheduledFor(reading.schedules, Date.UTC(2026, 1, 28, 12)));
    expect(scheduled).toBe(plain([...stepLines(path, reading.steps), ...times]));
  });

  it("shows a file and its faults", () => {
    const [example = ""] = blocks("docs/task-file.md", "yaml wrong");
    const reading = readTaskFile(path, example);
    expect(reading).toHaveProperty("faults");
    if ("faults" in reading) expect(wrong).toBe(plain(faultLines(path, reading.faults)));
  });
});

it("shows a task file that the runner reads as described", async () => {
  const [example = ""] = blocks("docs/runner.md", "yaml");
  execFileSync("mkdir", [join(folder, ".radicle")]);
  writeFileSync(join(folder, ".radicle/plumule.yaml"), example);
  expect(await readRepositorySteps(folder, {})).toMatchObject({
    found: ".radicle/plumule.yaml",
    steps: [
      { name: "lint", task: { kind: "shell", develop: "." } },
      { name: "build", task: { installables: [".#default", ".#docs"] } },
    ],
  });
});

it("shows trigger rules that a namespace takes", () => {
  const [whole, part] = blocks("docs/triggers.md", "json").map((block) => JSON.parse(block) as object);
  const rules = triggersBodySchema.parse(whole);
  expect([rules.triggers.length, checkTriggers(rules)]).toEqual([3, null]);
  expect(rules).toMatchObject(part ?? {});
});

describe("docs/reliability.md", () => {
  const rows = textOf("docs/reliability.md")
    .split("\n")
    .filter((line) => /^\| P\d+ /.test(line))
    .map((line) => line.split("|").map((cell) => cell.trim()));

  it("has a row for every promise", () => {
    expect(rows.map(([, promise]) => /^P\d+/.exec(promise ?? "")?.[0])).toEqual(
      Array.from({ length: 18 }, (_, at) => `P${at + 1}`),
    );
  });

  it.each([
    [2, "unit"],
    [3, "workers"],
    [4, "e2e"],
  ])("names in column %i tests that exist in test/%s", (column, folder) => {
    const named = rows.flatMap((cells) => [...(cells[column] ?? "").matchAll(/`([^`]+)`/g)].map((match) => match[1]));
    expect(named.length).toBeGreaterThan(8);
    expect(named.filter((name) => !existsSync(join(root, "test", folder, `${name}.test.ts`)))).toEqual([]);
  });
});

it("docs/security.md answers ten risks, each with tests that exist", () => {
  const rows = textOf("docs/security.md").match(/^\| \d+ [^]*?$/gm) ?? [];
  expect(rows).toHaveLength(10);
  for (const row of rows) {
    const named = [...row.matchAll(/`((?:unit|workers|e2e)\/[a-z-]+)`/g)].map(([, name]) => name ?? "");
    expect(named.length, row).toBeGreaterThan(1);
    expect(named.filter((name) => !existsSync(join(root, "test", `${name}.test.ts`)))).toEqual([]);
  }
});
