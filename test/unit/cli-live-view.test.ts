import { expect, it } from "vitest";
import { createLiveView } from "../../cli/src/live-view.ts";
import { createTerminal, type Terminal } from "../../cli/src/print.ts";

function terminal(isTTY: boolean): { terminal: Terminal; text: () => string } {
  let text = "";
  const stdout = { isTTY, write: (more: string | Uint8Array) => (text += String(more)) };
  return { terminal: createTerminal({ stdout, stderr: stdout, env: {}, json: false }), text: () => text };
}

/** What a screen shows after this text: enough of a terminal for the two sequences that a view uses. */
function shown(text: string): string[] {
  const lines = [""];
  let row = 0;
  // oxlint-disable-next-line no-control-regex -- the sequences are what is interpreted
  for (const part of text.split(/(\u001b\[\d*[AJ]|\n|\r)/)) {
    if (part === "\n") lines[(row += 1)] ??= "";
    else if (part.endsWith("A") && part.startsWith("\u001b")) row -= Number(part.slice(2, -1));
    else if (part === "\u001b[J") lines.splice(row, lines.length, "");
    else if (part !== "\r") lines[row] += part;
  }
  return lines;
}

it("keeps its lines and paints the block below them in place", () => {
  const { terminal: screen, text } = terminal(true);
  const view = createLiveView(screen);
  view.print("first");
  view.paint(["head 0:01", "  gems"]);
  view.print("second");
  view.paint(["head 0:02"]);
  view.print("third");
  expect(shown(text())).toEqual(["first", "second", "third", "head 0:02", ""]);
  view.paint([]);
  expect(shown(text())).toEqual(["first", "second", "third", ""]);
});

it("writes nothing when nothing has changed", () => {
  const { terminal: screen, text } = terminal(true);
  const view = createLiveView(screen);
  view.paint(["head"]);
  const before = text();
  view.paint(["head"]);
  expect(text()).toBe(before);
});

it("prints lines alone where there is no screen", () => {
  const { terminal: pipe, text } = terminal(false);
  const view = createLiveView(pipe);
  view.paint(["head"]);
  view.print("line");
  view.paint([]);
  expect(text()).toBe("line\n");
});
