import { checkWorld, Violation } from "./always.ts";
import { brokerSteps } from "./broker-steps.ts";
import type { Core } from "./core.ts";
import { digest } from "./encode.ts";
import { peopleSteps } from "./people-steps.ts";
import { eager } from "./machine.ts";
import { runnerSteps } from "./runner-steps.ts";
import { settle } from "./settle.ts";
import type { Step } from "./step.ts";
import type { Scope } from "./scopes.ts";
import { States } from "./states.ts";
import { emptyWorld, type World } from "./world.ts";

/** The property of all states together: from each of them some way leads to the end. */
export const NO_WAY_OUT = "from every state all jobs can end";

/** A property that fails, with the shortest way to it. */
export type Failure = { property: string; seen: string; trace: readonly string[] };

/** What a search found. `failure` null: every property holds in every state. `reached`: states of jobs, edges and paths of recovery. */
export type Found = {
  failure: Failure | null;
  stateCount: number;
  edgeCount: number;
  depth: number;
  seconds: number;
  reached: Set<string>;
  isComplete: boolean;
};

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

/** Takes one step. What the core throws is a failure too: it refuses what its own rules led to. */
function take(step: Step): World | Failure {
  try {
    const world = step.take();
    checkWorld(world);
    return world;
  } catch (fault) {
    if (!(fault instanceof Error)) throw fault;
    const property = fault instanceof Violation ? fault.property : "the core accepts its own state";
    return { property, seen: fault.message, trace: [] };
  }
}

/**
 * Breadth-first search through every state of a scope. A search that meets `maxStates` ends incomplete, without a word about liveness.
 * `watch` hears how far it is after each step of depth.
 */
export function search(core: Core, scope: Scope, maxStates = Infinity, watch = (_: Found): void => {}): Found {
  const began = performance.now();
  const start = emptyWorld(scope);
  const states = new States();
  const quiet = new Set([states.meet(digest(start), -1, 0).index]);
  let frontier: { index: number; world: World }[] = [{ index: 0, world: start }];
  let depth = 0;
  const reached = new Set<string>();
  const found = (failure: Failure | null, isComplete: boolean): Found => {
    for (const one of scope.seen) reached.add(one);
    const seconds = (performance.now() - began) / 1_000;
    return { failure, stateCount: states.count, edgeCount: states.edgeCount, depth, seconds, reached, isComplete };
  };

  for (; frontier.length > 0; depth += 1) {
    const next: typeof frontier = [];
    for (const { index, world } of frontier) {
      states.expand();
      for (const [ordinal, step] of stepsOf(core, scope, world).entries()) {
        const after = take(step);
        if ("trace" in after)
          return found({ ...after, trace: [...labelsOf(core, scope, states.ordinalsTo(index)), step.label] }, false);
        if (after === world) continue;
        const { index: target, isNew } = states.meet(digest(after), index, ordinal);
        states.leadsTo(target);
        note(world, after, reached);
        if (!isNew) continue;
        if (isQuiet(after)) quiet.add(target);
        next.push({ index: target, world: after });
      }
      if (states.count > maxStates) return found(null, false);
    }
    frontier = next;
    watch(found(null, false));
  }
  const stuck = states.firstStuck((index) => quiet.has(index));
  if (stuck === null) return found(null, true);
  const trace = labelsOf(core, scope, states.ordinalsTo(stuck));
  return found({ property: NO_WAY_OUT, seen: "no way out", trace }, true);
}

/** The names of steps that were taken one after the other from the beginning. */
function labelsOf(core: Core, scope: Scope, ordinals: readonly number[]): string[] {
  let world = emptyWorld(scope);
  return ordinals.map((ordinal) => {
    const step = stepsOf(core, scope, world)[ordinal];
    if (step === undefined) throw new Error("a step is not there any more");
    world = step.take();
    return step.label;
  });
}

function note(before: World, after: World, reached: Set<string>): void {
  if (after.told === before.told) return;
  after.told.forEach(({ state }, index) => {
    const was = before.told[index]?.state ?? null;
    if (state !== null && state !== was) reached.add(`${was} -> ${state}`).add(state);
  });
}

/** Takes the steps of a trace again; the failure that it ends with, or null when it does not any more. Throws when a step is not there. */
export function replay(core: Core, scope: Scope, trace: readonly string[]): Failure | null {
  let world = emptyWorld(scope);
  for (const label of trace) {
    const step = stepsOf(core, scope, world).find((one) => one.label === label);
    if (step === undefined) throw new Error(`no step "${label}" here`);
    const after = take(step);
    if ("trace" in after) return { ...after, trace };
    world = after;
  }
  return null;
}
