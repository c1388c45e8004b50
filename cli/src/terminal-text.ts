/** Makes text of strangers fit for a screen. It keeps what it needs of a sequence that is cut in two by a chunk. */
export type TextFilter = { push: (text: string) => string; flush: () => string };

/** Longest beginning of a control sequence that is waited for; what is longer is shown as text. */
const SEQUENCE_CHARACTERS = 4_096;

/* oxlint-disable no-control-regex -- control characters are what this file is about */
/**
 * ECMA-48 control sequences, strings (titles, clipboards, links), other escapes, carriage returns, the C0 and C1 controls but tab and
 * line feed, and the Unicode controls that turn the direction of text, which are shown as `\\u202e`.
 */
const CONTROLS =
  /\u001b\[[0-?]*[ -/]*[@-~]|\u001b[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\)|\u001b[ -/]*[0-~]|\r\n?|[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const COLOUR = /^\u001b\[[0-9;:]*m$/;
const UNFINISHED = /(?:\r|\u001b(?:\[[0-?]*[ -/]*|[\]PX^_][^\u0007\u001b]*\u001b?|[ -/]*)?)$/;
/* oxlint-enable no-control-regex */

/**
 * A filter for text that somebody else wrote, such as a log: nothing in it can move the cursor, set a title, write the clipboard or hide
 * a line. Colours stay if `colours` says so.
 */
export function createTextFilter({ colours }: { colours: boolean }): TextFilter {
  let held = "";
  const filter = (text: string): string =>
    text.replace(CONTROLS, (control) => {
      if (control.startsWith("\r")) return "\n";
      // Left out, they would hide that what is read is not what was written.
      if (control > "\u009f") return `\\u${control.charCodeAt(0).toString(16).padStart(4, "0")}`;
      return colours && COLOUR.test(control) ? control : "";
    });
  return {
    push(chunk) {
      const text = held + chunk;
      const unfinished = UNFINISHED.exec(text)?.[0] ?? "";
      held = unfinished.length > SEQUENCE_CHARACTERS ? "" : unfinished;
      return filter(text.slice(0, text.length - held.length));
    },
    flush() {
      const text = filter(held);
      held = "";
      return text;
    },
  };
}

/** A word or sentence of somebody else, for the middle of a line of ours: no colours and no line breaks either. */
export function inLine(text: string): string {
  const filter = createTextFilter({ colours: false });
  return (filter.push(text) + filter.flush()).replaceAll(/[\n\t]+/g, " ");
}
