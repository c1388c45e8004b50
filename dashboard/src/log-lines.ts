import { eachFrame, h } from "./dom.ts";
import { PLAIN, type Style, styleLine } from "./sgr.ts";
import { plain } from "./words.ts";

/** Lines that are shown; those before them are dropped. */
const LINES_MAX = 5_000;
/** A line that has no end is broken after this many characters. */
const LINE_MAX = 16 * 1024;
/** Distance from the end, px, within which a reader counts as being at the end. */
const END_PX = 24;

/** The text of a log as lines. */
export type LogLines = {
  element: HTMLElement;
  /** Adds text as it came, in pieces of any length. */
  add: (text: string) => void;
  /** Shows a last line that has no end. */
  finish: () => void;
  setFollow: (follows: boolean) => void;
  isFollowing: () => boolean;
};

/** Shows lines and stays at their end until the reader scrolls up. `changed` gets how many lines the reader has not seen. */
export function logLines(changed: (isFollowing: boolean, unseenCount: number) => void): LogLines {
  const element = h("div", { class: "lines", role: "log", "aria-live": "off", tabindex: "0", "aria-label": "Log" });
  let waiting: string[] = [];
  let unfinished = "";
  let style: Style = PLAIN;
  let number = 0;
  let unseenCount = 0;
  let isFollowing = true;

  const take = (text: string): HTMLElement => {
    const styled = styleLine(text, style);
    style = styled.style;
    number += 1;
    return h("div", { "data-line": String(number) }, ...styled.pieces.map(pieceOf), "\n");
  };
  const draw = eachFrame(() => {
    if (isFollowing) unseenCount = 0;
    element.append(...waiting.map(take).slice(-LINES_MAX));
    waiting = [];
    for (let extra = element.childElementCount - LINES_MAX; extra > 0; extra -= 1) element.firstElementChild?.remove();
    if (isFollowing) element.scrollTop = element.scrollHeight;
    changed(isFollowing, unseenCount);
  });
  const setFollow = (follows: boolean): void => {
    isFollowing = follows;
    draw();
  };
  element.addEventListener("scroll", () => {
    const isAtEnd = element.scrollHeight - element.scrollTop - element.clientHeight < END_PX;
    if (isAtEnd !== isFollowing) setFollow(isAtEnd);
  });

  const add = (text: string): void => {
    const parts = (unfinished + text).split("\n");
    unfinished = parts.pop() ?? "";
    if (unfinished.length > LINE_MAX) {
      parts.push(unfinished);
      unfinished = "";
    }
    unseenCount += parts.length;
    for (const part of parts) waiting.push(part);
    draw();
  };
  const finish = (): void => {
    if (unfinished !== "") add("\n");
  };
  return { element, add, finish, setFollow, isFollowing: () => isFollowing };
}

function pieceOf({ style, text }: { style: Style; text: string }): HTMLElement {
  const span = h("span", { class: style.classes.join(" ") }, plain(text));
  if (style.color !== undefined) span.style.color = style.color;
  if (style.background !== undefined) span.style.backgroundColor = style.background;
  return span;
}
