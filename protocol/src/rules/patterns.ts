/**
 * True when the pattern matches the whole text. `*` stands for anything within a path part, `**` for anything. The pattern is
 * walked as an automaton: its cost is the product of the two lengths, whatever the pattern, which a regular expression does not promise.
 */
export function matchesPattern(pattern: string, text: string): boolean {
  // What stands before the first star decides about most texts.
  if (!text.startsWith(pattern.split("*", 1)[0] ?? "")) return false;
  const parts = pattern.match(/\*\*|[^]/gu) ?? [];
  let reached = skipStars(parts, new Set([0]));
  for (const character of text) {
    const next = new Set<number>();
    for (const at of reached) {
      const part = parts[at];
      if (part === "**" || (part === "*" && character !== "/")) next.add(at);
      else if (part === character && part !== "*") next.add(at + 1);
    }
    reached = skipStars(parts, next);
  }
  return reached.has(parts.length);
}

/** A star may stand for nothing, so every place before one is also the place behind it. */
function skipStars(parts: readonly string[], places: Set<number>): Set<number> {
  for (const at of places) if (parts[at]?.startsWith("*") === true) places.add(at + 1);
  return places;
}
