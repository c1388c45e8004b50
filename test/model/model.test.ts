import { JOB_STATES } from "@plumule/protocol";
import { expect, it } from "vitest";
import { REAL } from "./core.ts";
import { MUTATIONS } from "./mutations.ts";
import { describeFailure, describeFound } from "./report.ts";
import { defaultScopes, scopeNamed } from "./scopes.ts";
import { type Found, replay, search } from "./search.ts";

/** States that a seeded bug may hide behind. */
const MUTATION_STATES = 40_000;

const reached = new Set<string>();

it.each(defaultScopes())(
  "keeps every property in every state, and always finds a way to the end: $name",
  { timeout: 240_000 },
  (scope) => {
    const found = search(REAL, scope);
    process.stdout.write(`${describeFound(scope, found)}\n`);
    expect(found.failure === null ? "" : describeFailure(scope, found.failure)).toBe("");
    expect(found.isComplete).toBe(true);
    for (const one of found.reached) reached.add(one);
  },
);

it("reaches every state of a job, every refusal and every recovery, so that what holds does not hold for want of cases", () => {
  const paths = [
    "assigned -> queued",
    "assigned -> failed",
    "assigned -> cancelled",
    "assigned -> superseded",
    "running -> queued",
    "running -> unknown",
    "running -> cancelling",
    "running -> skipped",
    "cancelling -> cancelled",
    "cancelling -> superseded",
    "cancelling -> failed",
    "cancelling -> unknown",
    "held -> queued",
    "held -> failed",
    "queued -> superseded",
    "granted at submit",
    "a late result",
    "a first heartbeat refused",
    "cancel job refused in-apply-phase",
    "submit refused busy",
    "submit refused gone",
  ];
  expect(JOB_STATES.filter((state) => !reached.has(state))).toEqual([]);
  expect(paths.filter((path) => !reached.has(path))).toEqual([]);
});

it.each(MUTATIONS)("catches a seeded bug: $name", { timeout: 120_000 }, ({ core, caughtBy, scope: name }) => {
  const scope = scopeNamed(name);
  const { failure, isComplete }: Found = search(core, scope, MUTATION_STATES);
  expect(failure, `survives in "${name}" (explored in full: ${isComplete})`).not.toBeNull();
  if (failure === null) return;
  expect(
    caughtBy.some((property) => failure.property.startsWith(property)),
    describeFailure(scope, failure),
  ).toBe(true);
  // What only the whole graph shows is no step of the trace.
  if (!failure.property.startsWith("from every state"))
    expect(replay(core, scopeNamed(name), failure.trace)?.property).toBe(failure.property);
});
