import { describeChanges } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import { taskText } from "../../cli/src/commands/get.ts";
import { lockTable } from "../../cli/src/commands/locks.ts";
import { deliveryTable, jobTable } from "../../cli/src/commands/ls.ts";
import { inLine } from "../../cli/src/terminal-text.ts";
import { at, COMMIT, job, JOB_ID, plain } from "./cli-fixtures.ts";

describe("a list of jobs", () => {
  it("marks where the text about a job is cut", () => {
    const table = plain(jobTable([job({ summary: "x".repeat(61) })], Date.parse(at(5))));
    expect(table).toContain(`${"x".repeat(59)}…`);
    expect(table).not.toContain("x".repeat(60));
  });
});

describe("a list of locks", () => {
  it("says who has each, how their job stands, and who waits", () => {
    const party = (deployment: string, seconds: number): { deployment: string; job: string; since: string } => ({
      deployment,
      job: JOB_ID,
      since: at(seconds),
    });
    const waiting = ["a", "b", "c"].map((name) => party(name, 5));
    const locks = [
      { name: "host:king", holder: { ...party("site", 0), state: "unknown" }, waiting, waitingCount: 5 },
      { name: "tf:main", holder: null, waiting: [party("shop", 5)], waitingCount: 1 },
    ];
    expect(plain(lockTable(locks, Date.parse(at(10))))).toBe(
      [
        "LOCK       HELD BY                       STATE    SINCE  WAITING",
        "host:king  0199c0de-7a11 in site         unknown  10s    0199c0de-7a11 in a, 0199c0de-7a11 in b, 0199c0de-7a11 in c and 2 more",
        "tf:main    kept for the first who waits                  0199c0de-7a11 in shop",
      ].join("\n"),
    );
  });
});

describe("a list of deliveries", () => {
  it("says for every rule which job it made, or why none", () => {
    const delivery = {
      id: "01a1fd29-ec74-7001-9f80-70832c6dd9be",
      webhookId: "1",
      hook: "git",
      signer: "x",
      receivedAt: at(0),
      type: "push",
      repository: null,
      ref: "refs/heads/main",
      after: COMMIT,
      state: "submitted" as const,
      results: [
        { trigger: "main", deployment: "site", job: JOB_ID, detail: "submitted" },
        { trigger: "tags", deployment: null, job: null, detail: "no pattern matches" },
      ],
    };
    expect(plain(deliveryTable([delivery, { ...delivery, state: "ignored", results: [] }], Date.parse(at(5))))).toBe(
      [
        "DELIVERY       AGE  REF              COMMIT    STATE      TRIGGER  JOB, OR WHY NONE",
        "01a1fd29-ec74  5s   refs/heads/main  01234567  submitted  main     0199c0de-7a11 in site",
        "01a1fd29-ec74  5s   refs/heads/main  01234567  submitted  tags     no pattern matches",
        "01a1fd29-ec74  5s   refs/heads/main  01234567  ignored",
      ].join("\n"),
    );
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

describe("what a run has changed", () => {
  it("is told in numbers and by its first paths, which can write nothing to a terminal", () => {
    const counts = { source: "overlay", addedCount: 3, modifiedCount: 0, deletedCount: 1 };
    const paths = [
      { path: "a\u001b[2J\nb", change: "added" as const },
      { path: "c", change: "deleted" as const },
    ];
    expect(describeChanges({ ...counts, paths }, inLine)).toMatch(/^3 added, 1 deleted: a[^\p{Cc}]*b, c, and 2 more$/u);
    expect(describeChanges({ ...counts, addedCount: 0, deletedCount: 0, paths: [] }, inLine)).toBeNull();
  });
});
