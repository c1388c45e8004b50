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

it("goes on while the disk is full, and writes what it could not under the same number when it takes it", async () => {
  const written: EventBatch[] = [];
  const tried: EventBatch[] = [];
  let isFull = true;
  const write = (batch: EventBatch): void => {
    tried.push(structuredClone(batch));
    if (isFull) throw new Error("ENOSPC: no space left on device, write");
    written.push(batch);
  };
  const reporter = createReporter(write, () => new Date(0), { derivationCount: 100, edgeCount: 100 });
  reporter.phase("setup");
  await expect.poll(() => tried.length, { timeout: 10_000 }).toBeGreaterThan(1);
  reporter.phase("building");
  await expect.poll(() => tried.length, { timeout: 10_000 }).toBeGreaterThan(3);
  expect(new Set(tried.map((batch) => JSON.stringify(batch))).size).toBe(1);
  reporter.finish();
  isFull = false;
  reporter.finish();
  expect(written).toMatchObject([
    { number: 1, events: [{ phase: "setup" }] },
    { number: 2, events: [{ phase: "building" }] },
  ]);
});
