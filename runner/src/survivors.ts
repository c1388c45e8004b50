/** What had to be killed of a run, over all its processes, and what could not be. */
export type Survivors = { killedCount: number; leftoverCount: number };

/** Names that one line of a log shows. */
const NAMES_COUNT = 10;

/** Counts what a process left behind, and says it in the log of the run, by name. */
export function reportKilled(
  { names, killedCount, leftoverCount }: Survivors & { names: readonly string[] },
  survivors: Survivors,
  log: (text: string) => void,
): void {
  survivors.killedCount += killedCount;
  survivors.leftoverCount += leftoverCount;
  if (killedCount > 0)
    log(
      `[plumule] killed ${killedCount === 1 ? "a process that was" : `${killedCount} processes that were`} left: ${namesText(names)}\n`,
    );
}

/** Names with how often each occurs. A process chooses its own, so nothing of it may steer a terminal. */
function namesText(names: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  const texts = Array.from(
    counts,
    ([name, count]) => `${name.replaceAll(/[^\x20-\x7e]/g, "?")}${count === 1 ? "" : ` ×${count}`}`,
  );
  const shown = texts.slice(0, NAMES_COUNT).join(", ");
  return texts.length > NAMES_COUNT ? `${shown} and others` : shown;
}
