import { expect, it } from "vitest";
import { type Found, retrace } from "./explore.ts";
import { LOCK_MUTATIONS, SILENT } from "./lock-mutations.ts";
import { lockScopeNamed, lockScopes } from "./lock-scopes.ts";
import { lockSpace, searchLocks } from "./lock-steps.ts";
import { REAL_LOCKS } from "./lock-world.ts";
import { describeFound, describeTrace } from "./report.ts";

/** States that a seeded bug may hide behind. */
const MUTATION_STATES = 60_000;

const reached = new Set<string>();

function described({ failure }: Found): string {
  return failure === null ? "" : describeTrace(failure);
}

it.each(lockScopes())("one job at most has a lock, and each gets its turn: $name", { timeout: 120_000 }, (scope) => {
  const found = searchLocks(REAL_LOCKS, scope);
  process.stdout.write(`${describeFound(scope, found)}\n`);
  expect(described(found)).toBe("");
  expect(found.isComplete).toBe(true);
  for (const one of found.reached) reached.add(one);
});

it("reaches what is rare, so that what holds does not hold for want of cases", () => {
  expect(["overtaken", "tried again", "unseen"].filter((one) => !reached.has(one))).toEqual([]);
});

it("goes on when nobody is told that it is their turn: whoever waits asks again", () => {
  const found = searchLocks(SILENT, lockScopeNamed("two deployments, one lock, two attempts"));
  expect(described(found)).toBe("");
  expect(found.isComplete).toBe(true);
});

it.each(LOCK_MUTATIONS)("catches a seeded bug: $name", { timeout: 120_000 }, ({ core, scope: name, caughtBy }) => {
  const scope = lockScopeNamed(name);
  const { failure, isComplete } = searchLocks(core, scope, MUTATION_STATES);
  expect(failure, `survives in "${name}" (explored in full: ${isComplete})`).not.toBeNull();
  if (failure === null) return;
  expect(
    caughtBy.some((property) => failure.property.startsWith(property)),
    describeTrace(failure),
  ).toBe(true);
  const again = retrace(lockSpace(core, scope), failure.trace);
  expect(again?.property ?? "from every state all jobs can end").toBe(failure.property);
});
