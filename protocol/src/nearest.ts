/** The name among those known that somebody may have meant who wrote another; null when none is near. */
export function nearestName(name: string, known: readonly string[]): string | null {
  const plain = (text: string): string => text.toLowerCase().replaceAll(/[^a-z]/g, "");
  // What is far longer than any name is no slip of the finger, and not worth the comparison.
  if (name.length > 64) return null;
  const [nearest] = known
    .map((one) => ({ one, apart: distance(plain(name), plain(one)) }))
    .toSorted((a, b) => a.apart - b.apart);
  return nearest !== undefined && nearest.apart <= 1 + name.length / 4 ? nearest.one : null;
}

/** How many letters must be put in, taken out or changed (Levenshtein). */
function distance(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (const [above, letter] of Array.from(one).entries()) {
    const next = [above + 1];
    for (const [index, against] of Array.from(other).entries())
      next.push(
        Math.min((row[index] ?? 0) + (letter === against ? 0 : 1), (row[index + 1] ?? 0) + 1, (next[index] ?? 0) + 1),
      );
    row = next;
  }
  return row.at(-1) ?? 0;
}

/** What is wrong with the name of a job that a file does not have. */
export function unknownJob(name: string, known: readonly string[]): string {
  const nearest = nearestName(name, known);
  return `there is no job \`${name}\`; ${nearest === null ? `there is ${known.join(", ")}` : `did you mean ${nearest}?`}`;
}
