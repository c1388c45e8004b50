import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";

const main = join(import.meta.dirname, "../../cli/src/main.ts");
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "plumule-lint-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function lint(...args: string[]): { code: number | null; out: string; err: string } {
  const env = { PATH: process.env["PATH"], HOME: folder, NO_COLOR: "1" };
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, "lint", ...args], {
    cwd: folder,
    env,
    encoding: "utf8",
  });
  return { code: status, out: stdout, err: stderr };
}

it("ends with 1 for a file with a fault, and tells programs where", () => {
  writeFileSync(join(folder, "faulty.yaml"), "jobs:\n  test: { shel: make }\n");
  const { code, out } = lint("faulty.yaml", "--json");
  expect(code).toBe(1);
  expect(JSON.parse(out)).toMatchObject({
    file: "faulty.yaml",
    faults: [{ line: 2 }, { line: 2, column: 11, pointer: "/jobs/test/shel" }],
    steps: [],
  });
});

it("shows what a runner would do in a folder, and ends with 2 where that is nothing", () => {
  expect(lint()).toMatchObject({ code: 2, out: "", err: expect.stringContaining("nothing to do") });
  mkdirSync(join(folder, ".radicle"));
  writeFileSync(join(folder, ".radicle/native.yaml"), "shell: make\n");
  expect(lint(".").out).toMatch(/^✓ \.radicle\/native\.yaml: 1 step.*\n.*\n1 {2}native {2}make\n$/);
});
