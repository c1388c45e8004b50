import type { Derivation } from "@plumule/protocol";
import { expect, it } from "vitest";
import type { BrokerAnswer } from "../../runner/src/broker.ts";
import { createReporter, type EventBatch } from "../../runner/src/reporter.ts";

const now = (): Date => new Date("2026-11-21T00:00:00.000Z");
const ok: BrokerAnswer<unknown> = { ok: true, value: null };
const away: BrokerAnswer<unknown> = {
  ok: false,
  retry: true,
  problem: { type: "", title: "", status: 0, code: "unavailable", detail: "", next: "" },
  logSize: null,
};
const derivation = (drv: string, state: Derivation["state"]): Derivation => ({ drv, name: drv, state });
const settle = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

it("sends what happened in a short time as one numbered batch, each derivation in its last state", async () => {
  const sent: EventBatch[] = [];
  const reporter = createReporter(async (batch) => (sent.push(batch), ok), now);
  reporter.phase("setup");
  reporter.derivations([derivation("a", "building"), derivation("b", "building")]);
  reporter.derivations([derivation("a", "built")]);
  reporter.phase("building");
  await settle(400);
  expect(sent).toEqual([
    {
      number: 1,
      events: [
        { type: "phase", phase: "setup", at: "2026-11-21T00:00:00.000Z" },
        { type: "phase", phase: "building", at: "2026-11-21T00:00:00.000Z" },
        { type: "derivations", derivations: [derivation("a", "built"), derivation("b", "building")] },
      ],
    },
  ]);
  expect(await reporter.finish()).toBeUndefined();
});

it("hands over what was not sent, under the number after the last", async () => {
  const sent: EventBatch[] = [];
  const reporter = createReporter(async (batch) => (sent.push(batch), ok), now);
  reporter.phase("setup");
  await settle(400);
  reporter.phase("signing");
  expect(await reporter.finish()).toMatchObject({ number: 2, events: [{ phase: "signing" }] });
  await settle(400);
  expect(sent).toHaveLength(1);
});

it("repeats a batch that could not be sent under its own number, so that the broker applies it once", async () => {
  const sent: EventBatch[] = [];
  const reporter = createReporter(async (batch) => (sent.push(batch), away), now);
  reporter.phase("setup");
  await settle(400);
  reporter.phase("building");
  const last = await reporter.finish();
  expect(sent.map((batch) => batch.number)).toEqual([1]);
  expect(last).toMatchObject({ number: 1, events: [{ phase: "setup" }] });
});
