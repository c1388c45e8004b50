import { describe, expect, it } from "vitest";
import {
  failureLines,
  printDone,
  printFailure,
  createTerminal,
  ageOf,
  clockOf,
  detailLines,
  fit,
  paint,
  shortId,
  shortKey,
  sizeOf,
  tableLines,
} from "../../cli/src/print.ts";
import { failureOf, misuse } from "../../cli/src/failure.ts";
import { problemOf, refuse } from "@plumule/protocol";
import { at, JOB_ID, plain, RUNNER_ID } from "./cli-fixtures.ts";

function screen(options: { isTTY?: boolean; json?: boolean; env?: Record<string, string> } = {}): {
  terminal: ReturnType<typeof createTerminal>;
  stdout: () => string;
  stderr: () => string;
} {
  const texts = { stdout: "", stderr: "" };
  const stream = (name: "stdout" | "stderr") => ({
    isTTY: options.isTTY ?? false,
    columns: 80,
    rows: 24,
    write: (text: string | Uint8Array) => (texts[name] += String(text)),
  });
  const terminal = createTerminal({
    stdout: stream("stdout"),
    stderr: stream("stderr"),
    env: options.env ?? {},
    json: options.json ?? false,
  });
  return { terminal, stdout: () => texts.stdout, stderr: () => texts.stderr };
}

const DONE = {
  line: "job 0199c0de-7a11 queued",
  next: "plumule watch 0199c0de-7a11",
  id: JOB_ID,
  answer: { job: JOB_ID },
};

describe("what a command prints", () => {
  it("is the id alone on stdout for a program, the sentence on stderr", () => {
    const { terminal, stdout, stderr } = screen();
    printDone(terminal, DONE);
    expect(stdout()).toBe(`${JOB_ID}\n`);
    expect(stderr()).toBe("✓ job 0199c0de-7a11 queued  → plumule watch 0199c0de-7a11\n");
  });

  it("is the sentence alone on a screen", () => {
    const { terminal, stdout, stderr } = screen({ isTTY: true });
    printDone(terminal, DONE);
    expect(stdout()).toBe("");
    expect(plain(stderr())).toBe("✓ job 0199c0de-7a11 queued  → plumule watch 0199c0de-7a11\n");
  });

  it("is JSON alone when that is asked for, failures too", () => {
    const { terminal, stdout, stderr } = screen({ json: true });
    printDone(terminal, DONE);
    printFailure(terminal, failureOf(problemOf(refuse("busy", "Job x runs."))));
    expect(
      stdout()
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as unknown),
    ).toEqual([
      { job: JOB_ID },
      { error: expect.objectContaining({ code: "busy", detail: "Job x runs." }), exitCode: 5 },
    ]);
    expect(stderr()).toBe("");
  });

  it.each([
    [{ isTTY: true }, true],
    [{ isTTY: false }, false],
    [{ isTTY: true, env: { NO_COLOR: "1" } }, false],
    [{ isTTY: true, env: { TERM: "dumb" } }, false],
    [{ isTTY: false, env: { CLICOLOR_FORCE: "1" } }, true],
    [{ isTTY: false, env: { CLICOLOR_FORCE: "1", NO_COLOR: "1" } }, false],
  ])("has colours where they are seen: %j", (options, coloured) => {
    const { terminal, stdout } = screen(options);
    terminal.out(paint.good("ok"));
    expect(stdout()).toBe(coloured ? "\u001b[32mok\u001b[39m\n" : "ok\n");
  });

  it("lets nothing through that moves the cursor", () => {
    const { terminal, stdout } = screen({ isTTY: true });
    terminal.out("a\u001b[2Ab");
    expect(stdout()).toBe("ab\n");
  });
});

describe("a failure", () => {
  it("says what, why, where and what to do", () => {
    const refusal = refuse("invalid-body", "1 field is wrong.", {
      errors: [
        { pointer: "/task/script", detail: "Too small" },
        { pointer: "", detail: "odd" },
      ],
    });
    expect(plain(failureLines(failureOf(problemOf(refusal))))).toBe(
      [
        "✗ The body is not valid",
        "  1 field is wrong.",
        "  /task/script  Too small",
        "  (whole body)  odd",
        "  next: Correct the fields named in `errors` and send again.",
      ].join("\n"),
    );
  });

  it("stands in one line where it quotes somebody", () => {
    expect(plain(failureLines(misuse("no\n✓ all well", "try again")))).toBe("✗ no ✓ all well\n  next: try again");
  });
});

describe("parts of lines", () => {
  it("are aligned in columns whatever their colour", () => {
    const lines = tableLines(
      ["A", "LONGER", "C"],
      [
        [paint.good("green"), "x", "1"],
        ["b", paint.bad("yy"), "22"],
      ],
    );
    expect(plain(lines)).toBe("A      LONGER  C\ngreen  x       1\nb      yy      22");
  });

  it("leave out details that are not there", () => {
    expect(
      plain(
        detailLines([
          ["short", "1"],
          ["rather long", "2"],
          ["gone", null],
          ["never", undefined],
        ]),
      ),
    ).toBe("short        1\nrather long  2");
  });

  it("are cut to the screen", () => {
    expect([fit("short", 10), fit("much too long", 6), fit(paint.good("green"), 5)]).toEqual([
      "short",
      "much …",
      paint.good("green"),
    ]);
  });

  it.each([
    [999, "0:00"],
    [48_000, "0:48"],
    [727_000, "12:07"],
    [3_723_000, "1:02:03"],
    [-5, "0:00"],
  ])("tell %i ms as %s", (ms, text) => expect(clockOf(ms)).toBe(text));

  it.each([
    [0, "now"],
    [12, "12s"],
    [180, "3m"],
    [7_200, "2h"],
    [200_000, "2d"],
  ])("tell %i s ago as %s", (seconds, text) => expect(ageOf(at(0), Date.parse(at(seconds)))).toBe(text));

  it.each([
    [312, "312 B"],
    [1_434, "1.4 KiB"],
    [20 * 1024 ** 2, "20.0 MiB"],
    [5 * 1024 ** 4, "5120.0 GiB"],
  ])("tell %i bytes as %s", (bytes, text) => expect(sizeOf(bytes)).toBe(text));

  it("shorten ids so that neighbours differ, and keys so that both ends show", () => {
    expect([shortId(JOB_ID), shortKey(RUNNER_ID)]).toEqual(["0199c0de-7a11", "z6MkvXqB…dNbd"]);
  });
});
