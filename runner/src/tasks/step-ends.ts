import { LIMITS } from "@plumule/protocol";
import type { BuiltTarget, TaskEnd } from "./task.ts";

/** How one of several steps ended; null when it was not run, because something that it needs did not succeed. */
export type StepEnd = { name: string; end: TaskEnd | null };

/** The end of a run of several steps, each of which succeeded, failed, or was not run: that of the first that failed, with the names of all. */
export function endOfSteps(ends: readonly StepEnd[]): TaskEnd {
  const failed = ends.filter(({ end }) => end?.outcome === "failed");
  const [first, ...others] = failed;
  if (first?.end == null)
    return {
      outcome: "succeeded",
      exitCode: 0,
      reason: null,
      targets: differing(ends.flatMap(({ end }) => end?.targets ?? [])),
    };
  const { reason } = first.end;
  const detail = [
    `\`${first.name}\`: ${reason?.detail ?? "It failed."}`,
    ...listed("Failed too", others),
    ...listed(
      "Not run",
      ends.filter(({ end }) => end === null),
    ),
  ].join(" ");
  return { ...first.end, reason: { code: "exit-code", ...reason, detail: fitting(detail) }, targets: [] };
}

function listed(what: string, steps: readonly StepEnd[]): string[] {
  return steps.length === 0 ? [] : [`${what}: ${steps.map(({ name }) => `\`${name}\``).join(", ")}.`];
}

/** The log names every step; here the first that failed counts most. */
function fitting(text: string): string {
  return text.length <= LIMITS.textCharacters ? text : `${text.slice(0, LIMITS.textCharacters - 1)}…`;
}

/** Two steps may build the same: it is stated once. */
function differing(targets: readonly BuiltTarget[]): BuiltTarget[] {
  return targets.filter(
    ({ attribute, drv }, index) =>
      targets.findIndex((other) => other.attribute === attribute && other.drv === drv) === index,
  );
}
