import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createTextFilter, inLine } from "../../cli/src/terminal-text.ts";

function filtered(text: string, colours = true): string {
  const filter = createTextFilter({ colours });
  return filter.push(text) + filter.flush();
}

/* oxlint-disable no-control-regex -- what must be gone is named */
const COLOURS = /\u001b\[[0-9;:]*m/g;
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/;
/* oxlint-enable no-control-regex */

describe("text of strangers", () => {
  it.each([
    ["colours", "\u001b[1;32mok\u001b[0m", "\u001b[1;32mok\u001b[0m"],
    ["a cursor that moves up", "one\u001b[2Atwo", "onetwo"],
    ["a cleared screen", "\u001b[2J\u001b[Hfake prompt $", "fake prompt $"],
    ["a title", "\u001b]0;owned\u0007text", "text"],
    ["a clipboard", "\u001b]52;c;cm0gLXJm\u001b\\text", "text"],
    ["a link", "\u001b]8;;http://evil\u001b\\click\u001b]8;;\u001b\\", "click"],
    ["a device control string", "\u001bPq#0\u001b\\text", "text"],
    ["a reset of the terminal", "\u001bctext", "text"],
    ["controls of 8 bits", "a\u009b2Jb\u0085c", "a2Jbc"],
    ["a line that overwrites itself", "secret\rpublic\r\nnext", "secret\npublic\nnext"],
    ["backspaces, bells and deletes", "a\bb\u0007c\u007f", "abc"],
    ["text whose direction is turned", "user\u202Eexe.txt\u2066", "user\\u202eexe.txt\\u2066"],
    ["tabs and line feeds", "a\tb\nc", "a\tb\nc"],
  ])("keeps or drops: %s", (_, text, safe) => expect(filtered(text)).toBe(safe));

  it("loses its colours where they are not wanted", () => expect(filtered("\u001b[31mred\u001b[m", false)).toBe("red"));

  it("is filtered alike however it is cut", () => {
    const pieces = fc.constantFrom(
      "a",
      "é",
      "\n",
      "\r",
      "\u001b",
      "[",
      "]",
      "3",
      "1",
      ";",
      "m",
      "A",
      "\u0007",
      "\\",
      "P",
      "\u009b",
      "(",
      " ",
    );
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 40 }), fc.array(fc.nat(40), { maxLength: 6 }), (parts, cuts) => {
        const text = parts.join("");
        const filter = createTextFilter({ colours: true });
        const at = [0, ...cuts.map((cut) => Math.min(cut, text.length)).toSorted((a, b) => a - b), text.length];
        const chunks = at.slice(1).map((end, index) => text.slice(at[index], end));
        expect(chunks.map((chunk) => filter.push(chunk)).join("") + filter.flush()).toBe(filtered(text));
      }),
    );
  });

  it("never leaves a sequence but colours, whatever it is", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(filtered(text).replaceAll(COLOURS, "")).not.toMatch(CONTROLS);
      }),
    );
  });

  it("waits for the end of a sequence only so long", () => {
    const filter = createTextFilter({ colours: true });
    expect(filter.push(`\u001b]0;${"x".repeat(5_000)}`)).toContain("xxx");
  });

  it("has no line of its own in the middle of one of ours", () => {
    expect(inLine("a\n✓ job succeeded\t\u001b[32mgreen")).toBe("a ✓ job succeeded green");
  });
});
