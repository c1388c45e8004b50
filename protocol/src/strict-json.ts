import { parseUtf8 } from "./bytes.ts";
import { accepted, refused, type Result } from "./result.ts";
import { TRUST_LIMITS } from "./trust-limits.ts";

/** Strings and the punctuation that opens, closes and separates; in valid JSON a string before a colon is a key. */
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\]:]/g;

/**
 * Reads JSON of which every reader must see the same document: valid UTF-8 without a byte order mark, no key twice, no `__proto__`,
 * no lone surrogate, limited nesting. JSON.parse alone keeps the last of two equal keys while other readers keep the first.
 */
export function parseStrictJson(
  bytes: Uint8Array,
  depthLimit: number = TRUST_LIMITS.jsonDepth,
): Result<unknown, "bad-json"> {
  const text = parseUtf8(bytes);
  if (text === null) return refused("bad-json", "not valid UTF-8");
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return refused("bad-json", "not valid JSON");
  }
  const fault = findFault(text, depthLimit);
  return fault === null ? accepted(value) : refused("bad-json", fault);
}

/** Scans the tokens of valid JSON; each open object keeps the keys that it has seen, an open array keeps none. */
function findFault(text: string, depthLimit: number): string | null {
  const open: (Set<string> | null)[] = [];
  let last = "";
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === "{" || token === "[") {
      if (open.push(token === "{" ? new Set() : null) > depthLimit) return `nested deeper than ${depthLimit} levels`;
    } else if (token === "}" || token === "]") {
      open.pop();
    } else if (token === ":") {
      const keys = open.at(-1);
      if (last === "__proto__") return "the key `__proto__` is reserved";
      if (keys?.has(last)) return `the key ${JSON.stringify(last)} stands twice in one object`;
      keys?.add(last);
    } else {
      last = JSON.parse(token) as string;
      if (!last.isWellFormed()) return "a string holds half of a surrogate pair";
    }
  }
  return null;
}
