import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";

const root = join(import.meta.dirname, "../..");
const longestFileLineCount = 400;
const wordsThatSayNothing = ["common", "helper", "helpers", "lib", "misc", "stuff", "types", "util", "utils"];

const files = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], { cwd: root })
  .toString()
  .split("\n")
  .filter((path) => path !== "" && !path.includes("fixtures/") && existsSync(join(root, path)));

it(`keeps every source file at ${longestFileLineCount} lines or fewer`, () => {
  const sources = files.filter((path) => /\.(ts|tsx|mjs|css|html)$/.test(path));
  const lineCount = (path: string): number => readFileSync(join(root, path), "utf8").trimEnd().split("\n").length;
  expect(sources.length).toBeGreaterThan(0);
  expect(sources.filter((path) => lineCount(path) > longestFileLineCount)).toEqual([]);
});

it("gives no file or folder a name that says nothing", () => {
  const words = (path: string): string[] => path.toLowerCase().split(/[/.]/);
  expect(files.filter((path) => words(path).some((word) => wordsThatSayNothing.includes(word)))).toEqual([]);
});
