import { checkWorld } from "./always.ts";
import { brokerSteps } from "./broker-steps.ts";
import type { Core } from "./core.ts";
import { digest } from "./encode.ts";
import { explore, type Failure, type Found, retrace, type Space } from "./explore.ts";
import { peopleSteps } from "./people-steps.ts";
import { eager } from "./machine.ts";
import { runnerSteps } from "./runner-steps.ts";
import { settle } from "./settle.ts";
import type { Step } from "./step.ts";
import type { Scope } from "./scopes.ts";
import { emptyWorld, type World } from "./world.ts";

/** Everything that may happen in a state. */
export function stepsOf(core: Core, scope: Scope, world: World): Step[] {
  const steps = [
    ...peopleSteps(core, scope, world),
    ...brokerSteps(core, scope, world),
    ...runnerSteps(core, scope, world),
  ];
  const follows = (after: World): World => {
    if (after === world) return world;
    const settled = scope.settles ? settle(after) : after;
    return scope.isEager ? eager(core, scope, settled) : settled;
  };
  return scope.settles || scope.isEager
    ? steps.map(({ label, take }) => ({ label, take: () => follows(take()) }))
    : steps;
}

/** Nothing is left to do: all jobs have ended, and no runner works, has results, has left something behind or is about to leave. */
function isQuiet({ state, runners }: World): boolean {
  const isIdle = runners.every(
    ({ disk, memory, processes, results }) =>
      disk.runs.length + disk.spool.length + processes.length + results.length === 0 &&
      (memory === null || memory.intent === "work"),
  );
  return isIdle && state.jobs.length === 0;
}

function note(before: World, after: World, reached: Set<string>): void {
  if (after.told === before.told) return;
  after.told.forEach(({ state }, index) => {
    const was = before.told[index]?.state ?? null;
    if (state !== null && state !== was) reached.add(`${was} -> ${state}`).add(state);
  });
}

/** The world of one deployment, its pool and its runners. */
function spaceOf(core: Core, scope: Scope): Space<World> {
  return {
    start: () => emptyWorld(scope),
    stepsOf: (world) => stepsOf(core, scope, world),
    check: checkWorld,
    digest,
    isQuiet,
    note,
    seen: scope.seen,
  };
}

/** Explores a scope (`explore`). */
export function search(core: Core, scope: Scope, maxStates = Infinity, watch = (_: Found): void => {}): Found {
  return explore(spaceOf(core, scope), maxStates, watch);
}

/** Takes the steps of a trace again (`retrace`). */
export function replay(core: Core, scope: Scope, trace: readonly string[]): Failure | null {
  return retrace(spaceOf(core, scope), trace);
}
