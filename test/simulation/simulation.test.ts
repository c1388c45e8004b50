import { expect, it } from "vitest";
import { CORPUS } from "./corpus.ts";
import { simulateMany, simulateRow } from "./fleet.ts";
import { MUTATIONS } from "./mutations.ts";
import { FAULTS } from "./platform/faults.ts";
import { describeFailure, Tally } from "./report.ts";
import type { Outcome } from "./simulate.ts";

/** Worlds of every run of the tests, and those in which a seeded bug has to show. */
const SEEDS = 2_000;
const MUTATION_SEEDS = 300;

it("keeps every promise in every world", { timeout: 480_000 }, async () => {
  const tally = new Tally();
  const failures: string[] = [];
  await simulateMany(1, SEEDS, {}, (outcome) => {
    tally.add(outcome);
    if (outcome.violation !== null) failures.push(describeFailure(outcome));
    return true;
  });
  process.stdout.write(`${tally.describe()}\n`);
  expect(failures).toEqual([]);
  expect(tally.seedCount).toBe(SEEDS);
  expect(FAULTS.filter((fault) => !tally.faults.has(fault))).toEqual([]);
});

it("finds nothing any more where it found something once", { timeout: 120_000 }, async () => {
  const failures: string[] = [];
  for (const { seed } of CORPUS)
    await simulateRow(seed, 1, {}, (outcome) => {
      if (outcome.violation !== null) failures.push(describeFailure(outcome));
      return true;
    });
  expect(failures).toEqual([]);
});

it("has one history for each seed, whatever was simulated before it (I21)", { timeout: 120_000 }, async () => {
  const alone: Outcome[] = [];
  const together: Outcome[] = [];
  await simulateRow(9_000, 6, {}, (outcome) => together.push(outcome) > 0);
  for (let seed = 9_003; seed < 9_006; seed += 1) await simulateRow(seed, 1, {}, (outcome) => alone.push(outcome) > 0);
  expect(alone).toEqual(together.slice(3));
  expect(new Set(together.map(({ hash }) => hash)).size).toBe(6);
});

it.each(MUTATIONS)("finds a seeded bug: $name", { timeout: 240_000 }, async (mutation) => {
  let found: Outcome | null = null;
  await simulateRow(mutation.from ?? 1, MUTATION_SEEDS, mutation, (outcome) => {
    if (outcome.violation !== null) found ??= outcome;
    return found === null;
  });
  const violation: string = (found as Outcome | null)?.violation ?? "";
  expect(violation, `not found in ${MUTATION_SEEDS} worlds`).not.toBe("");
  expect(
    mutation.caughtBy.some((invariant) => violation.startsWith(invariant)),
    violation,
  ).toBe(true);
});
