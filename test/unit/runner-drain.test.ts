import { expect, it } from "vitest";
import type { LiveRun, Memory } from "../../runner/src/core/model.ts";
import { mayLeave } from "../../runner/src/core/model.ts";
import { step } from "../../runner/src/core/step.ts";

const supervisor = { version: 1, pid: 7, startedAt: "1", boot: "b" };
const working: LiveRun = { run: "one", requestKey: "a", lease: "held", stage: "working", supervisor, seenCommand: 0 };
const memory: Memory = {
  intent: "work",
  key: null,
  asking: false,
  runs: [working, { ...working, run: "two", lease: "asked", stage: "waiting" }],
  spool: [],
};

it("the end of a drain stops what works, gives back what has not begun, and keeps the runner", () => {
  const { memory: after, effects } = step(memory, { type: "told to end the runs" });
  expect(effects).toMatchObject([
    { do: "stop", run: "one", order: { reason: { code: "runner-stopped" }, graceMs: null } },
    { do: "kill", run: "two" },
    { do: "spool", run: "two", end: "given-back" },
  ]);
  expect([after.intent, mayLeave(after)]).toEqual(["work", false]);
});
