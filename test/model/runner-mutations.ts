import type { Decided, Effect, Input, Memory } from "../../runner/src/core/model.ts";
import { REAL, type Core } from "./core.ts";
import type { Mutation } from "./mutation.ts";

type Step = Core["runner"]["step"];
type Recover = Core["runner"]["recover"];

const runner = (over: Partial<Core["runner"]>): Core => ({ ...REAL, runner: { ...REAL.runner, ...over } });
const machine = (over: Partial<Core["machine"]>): Core => ({ ...REAL, machine: { ...REAL.machine, ...over } });

/** A runner whose every decision comes out with other effects. */
function withEffects(change: (effects: readonly Effect[], input: Input, memory: Memory) => readonly Effect[]): Step {
  return (memory, input) => {
    const decided = REAL.runner.step(memory, input);
    return { ...decided, effects: change(decided.effects, input, memory) };
  };
}

const without = (...kinds: readonly Effect["do"][]): Step =>
  withEffects((effects) => effects.filter((effect) => !kinds.includes(effect.do)));

/** The first effect of a kind is carried out before everything else, or after it. */
const early = (effects: readonly Effect[], kind: Effect["do"]): readonly Effect[] => [
  ...effects.filter((effect) => effect.do === kind),
  ...effects.filter((effect) => effect.do !== kind),
];

const recovered = (change: (decided: Decided) => Decided): Recover => {
  return (disk, found) => change(REAL.runner.recover(disk, found));
};

const CRASHES = "one job, one runner that is killed";

/** Bugs of a runner and of its machine. */
export const RUNNER_MUTATIONS: readonly Mutation[] = [
  {
    name: "a runner polls before its key is on the disk",
    scope: CRASHES,
    caughtBy: ["P16"],
    core: runner({ step: withEffects((effects) => early(effects, "poll")) }),
  },
  {
    name: "a runner begins before its lease is accepted",
    scope: "one job",
    caughtBy: ["P1"],
    core: runner({
      step: (memory, input) =>
        input.type === "supervisor ready"
          ? REAL.runner.step({ ...memory, runs: memory.runs.map((one) => ({ ...one, lease: "held" as const })) }, input)
          : REAL.runner.step(memory, input),
    }),
  },
  {
    name: "a runner begins before its supervisor is on the disk",
    scope: CRASHES,
    caughtBy: ["P15", "P1"],
    core: runner({ step: withEffects((effects) => early(effects, "begin")) }),
  },
  {
    name: "the journal forgets a run before its result is in the spool",
    scope: CRASHES,
    caughtBy: ["P16"],
    core: runner({
      step: withEffects((effects) =>
        effects.flatMap((effect): readonly Effect[] =>
          effect.do === "spool" ? [{ do: "forget run", run: effect.run }, effect] : [effect],
        ),
      ),
    }),
  },
  {
    name: "a result leaves the spool when it is sent",
    scope: CRASHES,
    caughtBy: ["P16"],
    core: runner({
      step: withEffects((effects) =>
        effects.flatMap((effect): readonly Effect[] =>
          effect.do === "deliver" ? [effect, { do: "unspool", run: effect.run }] : [effect],
        ),
      ),
    }),
  },
  {
    name: "a result that was delivered stays in the spool",
    scope: "one job, explored in full",
    caughtBy: ["from every state"],
    core: runner({ step: without("unspool") }),
  },
  {
    name: "a restarted runner does not deliver what was spooled",
    scope: CRASHES,
    caughtBy: ["from every state"],
    core: runner({
      recover: recovered((decided) => ({
        ...decided,
        effects: decided.effects.filter((effect) => effect.do !== "deliver"),
      })),
    }),
  },
  {
    name: "a restarted runner begins again what its supervisor still does",
    scope: CRASHES,
    caughtBy: ["P1", "P15"],
    core: runner({
      recover: (disk, found) =>
        REAL.runner.recover({ ...disk, runs: disk.runs.map((one) => ({ ...one, state: "assigned" as const })) }, found),
    }),
  },
  {
    name: "a restarted runner gives up a run whose supervisor works, and leaves it at work",
    scope: CRASHES,
    caughtBy: ["P1", "P15", "P9"],
    core: runner({
      recover: (disk) => {
        const { memory, effects } = REAL.runner.recover(disk, () => "gone");
        return { memory, effects: effects.filter((effect) => effect.do !== "kill") };
      },
    }),
  },
  {
    name: "a restarted runner takes what was killed for what has ended",
    scope: CRASHES,
    caughtBy: ["P9"],
    core: runner({ recover: (disk) => REAL.runner.recover(disk, () => "ended") }),
  },
  {
    name: "a runner ignores that its lease is refused, and its machine does too",
    scope: "one job",
    caughtBy: ["P1"],
    core: {
      ...machine({ fences: false }),
      runner: {
        ...REAL.runner,
        step: (memory, input) =>
          input.type === "heartbeat refused" || input.type === "lease ended"
            ? { memory, effects: [] }
            : REAL.runner.step(memory, input),
      },
    },
  },
  {
    name: "a supervisor works on after its lease",
    scope: CRASHES,
    caughtBy: ["P1"],
    core: machine({ fences: false }),
  },
  {
    name: "a runner does not pass a cancel on",
    scope: "one job",
    caughtBy: ["P15"],
    core: runner({
      step: withEffects((effects) => effects.filter((effect) => effect.do !== "stop" || effect.order.leaseLost)),
    }),
  },
  {
    name: "a runner that was told to stop waits for an answer to what it did not ask",
    scope: "one job, a runner that is told to stop",
    caughtBy: ["from every state"],
    core: runner({ step: withEffects((effects) => effects.filter((effect) => effect.do !== "poll" || !effect.last)) }),
  },
];
