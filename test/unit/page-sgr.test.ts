import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PLAIN, type Style, styleLine } from "../../dashboard/src/sgr.ts";

const ESC = "\x1b";
const shown = (line: string): string =>
  styleLine(line, PLAIN)
    .pieces.map(({ text }) => text)
    .join("");
const looks = (line: string): [string, Style][] =>
  styleLine(line, PLAIN).pieces.map(({ text, style }) => [text, style]);

describe("a line of a log", () => {
  it("is split at its colours", () => {
    expect(looks(`a${ESC}[31mb${ESC}[1mc${ESC}[0md${ESC}[me`)).toEqual([
      ["a", { classes: [] }],
      ["b", { classes: ["fg-1"] }],
      ["c", { classes: ["fg-1", "bold"] }],
      ["d", { classes: [] }],
      ["e", { classes: [] }],
    ]);
  });

  it.each([
    ["1;4;32", { classes: ["bold", "underline", "fg-2"] }],
    ["1;22;3;23;9;29", { classes: [] }],
    ["31;39;41;49", { classes: [] }],
    ["91;107", { classes: ["fg-9", "bg-15"] }],
    ["31;32", { classes: ["fg-2"] }],
    ["38;5;9;48;5;4", { classes: ["fg-9", "bg-4"] }],
    ["38;5;208", { classes: [], color: "rgb(255 135 0)" }],
    ["48;5;240", { classes: [], background: "rgb(88 88 88)" }],
    ["38;2;1;2;999;1", { classes: ["bold"], color: "rgb(1 2 255)" }],
    ["38;2;1;2;3;0", { classes: [] }],
    ["38", { classes: [] }],
    ["5;200;999", { classes: [] }],
  ])("reads %s", (codes, style) => {
    expect(looks(`${ESC}[${codes}mx`)).toEqual([["x", style]]);
  });

  it("goes on in the style that the line before ended with", () => {
    const { style } = styleLine(`${ESC}[32mone`, PLAIN);
    expect(styleLine("two", style).pieces).toEqual([{ text: "two", style: { classes: ["fg-2"] } }]);
  });

  it("does not grow with a style that is set over and over", () => {
    expect(styleLine(`${ESC}[1;31m`.repeat(1_000), PLAIN).style.classes).toEqual(["bold", "fg-1"]);
  });

  it.each([
    ["a cursor that moves", `a${ESC}[2K${ESC}[1;1Hb`],
    ["a title", `a${ESC}]0;title\x07b`],
    ["a link", `${ESC}]8;;https://x.example${ESC}\\a${ESC}]8;;${ESC}\\b`],
    ["a title without an end", `ab${ESC}]0;title`],
    ["a device string", `a${ESC}Pq#0${ESC}\\b`],
    ["a character set", `a${ESC}(Bb`],
    ["controls", "a\x00\x07\x08\x7f\x9bb"],
    ["an escape at the end", `ab${ESC}`],
  ])("drops %s", (_, line) => {
    expect(shown(line)).toBe("ab");
  });

  it("shows the last state of a line that overwrote itself", () => {
    expect(shown("10%\r50%\r100%")).toBe("100%");
    expect(shown("windows\r")).toBe("windows");
  });

  it("never lets a control through", () => {
    const pieces = fc.oneof(
      fc.constantFrom(ESC, `${ESC}[`, `${ESC}]`, "\r", "\x07", ";", "3", "8", "m", "\x9b"),
      fc.string({ unit: "binary" }),
    );
    fc.assert(
      fc.property(fc.array(pieces), (parts) => {
        const text = shown(parts.join("").replaceAll("\n", ""));
        expect(text.match(/[^\P{Cc}\t]/u)).toBeNull();
      }),
    );
  });
});
