import { describe, expect, it } from "vitest";
import { taskText } from "../../cli/src/commands/get.ts";
import { jobTable } from "../../cli/src/commands/ls.ts";
import { at, job, plain } from "./cli-fixtures.ts";

describe("a list of jobs", () => {
  it("marks where the text about a job is cut", () => {
    const table = plain(jobTable([job({ summary: "x".repeat(61) })], Date.parse(at(5))));
    expect(table).toContain(`${"x".repeat(59)}…`);
    expect(table).not.toContain("x".repeat(60));
  });
});

describe("a task in a few words", () => {
  it.each([
    ["echo hello\n", "shell: echo hello"],
    ["set -e\nmake", "shell: set -e …"],
    ["y".repeat(81), `shell: ${"y".repeat(79)}…`],
  ])("is the beginning of the script %j", (script, text) => {
    expect(taskText({ kind: "shell", script })).toBe(text);
  });
});
