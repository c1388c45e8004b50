import type { Derivation } from "@plumule/protocol";
import { expect, it } from "vitest";
import { createReporter, type Reporter } from "../../runner/src/reporter.ts";
import type { EventBatch } from "../../runner/src/supervisor/records.ts";

const derivation = (drv: string, state: Derivation["state"]): Derivation => ({ drv, name: drv, state });
const settle = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

function report(): { written: EventBatch[]; reporter: Reporter } {
  const written: EventBatch[] = [];
  const now = (): Date => new Date("2026-11-21T00:00:00.000Z");
  const limits = { derivationCount: 100, edgeCount: 100 };
  return { written, reporter: createReporter((batch) => void written.push(batch), now, limits) };
}

it("writes what happened in a short time as one numbered batch, each derivation in its last state", async () => {
  const { written, reporter } = report();
  reporter.phase("setup");
  reporter.derivations([derivation("a", "building"), derivation("b", "building")]);
  reporter.derivations([derivation("a", "built")]);
  reporter.phase("building");
  await settle(400);
  expect(written).toEqual([
    {
      number: 1,
      events: [
        { type: "phase", phase: "setup", at: "2026-11-21T00:00:00.000Z" },
        { type: "phase", phase: "building", at: "2026-11-21T00:00:00.000Z" },
        { type: "derivations", derivations: [derivation("a", "built"), derivation("b", "building")] },
      ],
    },
  ]);
  reporter.finish();
  expect(written).toHaveLength(1);
});

it("writes at the end what it had gathered, under the number after the last", async () => {
  const { written, reporter } = report();
  reporter.phase("setup");
  await settle(400);
  reporter.phase("signing");
  reporter.finish();
  expect(written.at(-1)).toMatchObject({ number: 2, events: [{ phase: "signing" }] });
  await settle(400);
  expect(written).toHaveLength(2);
});
