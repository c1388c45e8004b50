import type { Scope } from "./scopes.ts";
import type { Failure, Found } from "./search.ts";

/** One line: how much of a scope was seen. */
export function describeFound({ name }: Scope, found: Found): string {
  const { stateCount, edgeCount, depth, seconds, isComplete } = found;
  const counts = `${stateCount} states, ${edgeCount} edges, depth ${depth}, ${seconds.toFixed(1)} s`;
  return `${name}: ${counts}${isComplete ? "" : ", not explored in full"}`;
}

/** A failure as a person reads it, with the lines of a test that takes the same steps again. */
export function describeFailure({ name }: Scope, { seen, trace }: Failure): string {
  const steps = trace.map((step, index) => `  ${index + 1}. ${step}`);
  const test = `expect(replay(REAL, scopeNamed(${JSON.stringify(name)}), ${JSON.stringify(trace)})).toBeNull();`;
  return [seen, ...steps, "Again as a test:", `  ${test}`].join("\n");
}
