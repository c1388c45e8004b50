import type { Scope } from "./scopes.ts";
import { type Failure, type Found, NO_WAY_OUT } from "./explore.ts";

/** One line: how much of a scope was seen. */
export function describeFound({ name }: { name: string }, found: Found): string {
  const { stateCount, edgeCount, depth, seconds, isComplete } = found;
  const counts = `${stateCount} states, ${edgeCount} edges, depth ${depth}, ${seconds.toFixed(1)} s`;
  return `${name}: ${counts}${isComplete ? "" : ", not explored in full"}`;
}

/** A failure as a person reads it, step by step. */
export function describeTrace({ seen, trace }: Failure): string {
  return [seen, ...trace.map((step, index) => `  ${index + 1}. ${step}`)].join("\n");
}

/** A failure as a person reads it, with a test that shows it again. */
export function describeFailure(scope: Scope, failure: Failure): string {
  return [describeTrace(failure), "Again as a test:", testOf(scope, failure)].join("\n");
}

/** A test that fails as long as the bug is there: it takes the same steps again, or looks for what only all states together show. */
export function testOf({ name }: Scope, { property, trace }: Failure): string {
  const where = `REAL, scopeNamed(${JSON.stringify(name)})`;
  const lines = isOfGraph(property)
    ? [`  expect(search(${where}).failure).toBeNull();`]
    : [
        `  const trace = [`,
        ...trace.map((step) => `    ${JSON.stringify(step)},`),
        "  ];",
        `  expect(replay(${where}, trace)).toBeNull();`,
      ];
  return [`it(${JSON.stringify(property)}, () => {`, ...lines, "});"].join("\n");
}

/** Whether a property speaks of all states together: then no step of its trace breaks it. */
export function isOfGraph(property: string): boolean {
  return property === NO_WAY_OUT;
}
