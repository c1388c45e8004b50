/** How a piece of a log looks: class names, and colours that have no class. */
export type Style = { classes: readonly string[]; color?: string; background?: string };

/** A line as pieces of one style each, and the style that the next line begins with. */
export type StyledLine = { pieces: readonly { style: Style; text: string }[]; style: Style };

export const PLAIN: Style = { classes: [] };

/** SGR (its parameters are captured) and everything else that moves a terminal: CSI, OSC, other strings, escapes, controls. */
const SEQUENCE =
  // oxlint-disable-next-line no-control-regex -- control characters are what this is about
  /\x1b\[([0-9;]*)m|\x1b\[[0-?]*[ -/]*[@-~]?|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[PX^_][^\x1b]*(?:\x1b\\)?|\x1b[ -/]*[0-~]?|[\0-\x08\x0b-\x1f\x7f-\x9f]/g;

/** Splits a line of terminal text at its colours. All other sequences are dropped; of a line that overwrote itself the last state stays. */
export function styleLine(line: string, from: Style): StyledLine {
  const shown = line.slice(line.lastIndexOf("\r", line.length - 2) + 1);
  const pieces: { style: Style; text: string }[] = [];
  let style = from;
  let at = 0;
  const take = (until: number): void => {
    const last = pieces.at(-1);
    if (last?.style === style) last.text += shown.slice(at, until);
    else if (until > at) pieces.push({ style, text: shown.slice(at, until) });
  };
  for (const match of shown.matchAll(SEQUENCE)) {
    take(match.index);
    if (match[1] !== undefined) style = applySgr(style, match[1].split(";").map(Number));
    at = match.index + match[0].length;
  }
  take(shown.length);
  return { pieces, style };
}

const MODES: Readonly<Record<number, string>> = {
  1: "bold",
  2: "dim",
  3: "italic",
  4: "underline",
  7: "inverse",
  9: "strike",
};

function applySgr(style: Style, codes: readonly number[]): Style {
  const next = { ...style, classes: [...style.classes] };
  const clear = (...prefixes: string[]): void => {
    next.classes = next.classes.filter((name) => !prefixes.some((prefix) => name.startsWith(prefix)));
    if (prefixes.includes("fg")) delete next.color;
    if (prefixes.includes("bg")) delete next.background;
  };
  const paint = (ground: "fg" | "bg", color: number | string): void => {
    clear(ground);
    if (typeof color === "number") next.classes.push(`${ground}-${color}`);
    else if (ground === "fg") next.color = color;
    else next.background = color;
  };
  for (let index = 0; index < codes.length; index += 1) {
    const code = codes[index] ?? 0;
    const mode = MODES[code];
    if (code === 0) {
      clear("", "fg", "bg");
    } else if (mode !== undefined) next.classes = [...new Set([...next.classes, mode])];
    else if (code === 22) clear("bold", "dim");
    else if (code > 22 && code < 30) clear(MODES[code - 20] ?? "none");
    else if (code === 39) clear("fg");
    else if (code === 49) clear("bg");
    else if (code === 38 || code === 48) {
      const { color, used } = extendedColor(codes.slice(index + 1));
      if (color !== null) paint(code === 38 ? "fg" : "bg", color);
      index += used;
    } else if ((code >= 30 && code < 38) || (code >= 40 && code < 48)) paint(code < 40 ? "fg" : "bg", code % 10);
    else if ((code >= 90 && code < 98) || (code >= 100 && code < 108)) paint(code < 98 ? "fg" : "bg", (code % 10) + 8);
  }
  return next;
}

/** The colour after 38 or 48: `5;n` of 256, or `2;r;g;b`. The first sixteen are the theme's own. */
function extendedColor([kind, ...rest]: readonly number[]): { color: number | string | null; used: number } {
  const [first = 0, green = 0, blue = 0] = rest.map((value) => Math.min(255, value));
  if (kind === 2) return { color: `rgb(${first} ${green} ${blue})`, used: 4 };
  if (kind !== 5) return { color: null, used: 1 };
  if (first < 16) return { color: first, used: 2 };
  if (first > 231) return { color: gray((first - 232) * 10 + 8), used: 2 };
  const level = (value: number): number => (value === 0 ? 0 : value * 40 + 55);
  const cube = first - 16;
  const [red, middle, low] = [Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map(level);
  return { color: `rgb(${red} ${middle} ${low})`, used: 2 };
}

function gray(level: number): string {
  return `rgb(${level} ${level} ${level})`;
}
