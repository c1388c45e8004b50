import type { Terminal } from "./print.ts";

/**
 * The end of a screen that is painted again and again, below lines that stay. Nothing is cleared, so that what scrolled by is still
 * there afterwards. Where there is no screen only the lines are printed.
 */
export type LiveView = {
  /** A line that stays. */
  print: (line: string) => void;
  /** The block below the lines, in place of the one before. */
  paint: (block: readonly string[]) => void;
};

/** A view on stdout. */
export function createLiveView(terminal: Terminal): LiveView {
  let painted: readonly string[] = [];
  const erase = (): void => {
    // Up to the first line of the block, then everything from there to the end of the screen.
    if (painted.length > 0) terminal.write(`\u001b[${painted.length}A\r\u001b[J`);
  };
  const draw = (): void => {
    for (const line of painted) terminal.out(line);
  };
  return {
    print(line) {
      erase();
      terminal.out(line);
      draw();
    },
    paint(block) {
      if (!terminal.isScreen || block.join("\n") === painted.join("\n")) return;
      erase();
      painted = block;
      draw();
    },
  };
}
