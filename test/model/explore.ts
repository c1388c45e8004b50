import { Violation } from "./always.ts";
import type { Digest } from "./encode.ts";
import { States } from "./states.ts";
import type { Step } from "./step.ts";

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

/** A world to explore. `check` throws a `Violation`; `isQuiet`: nothing is left to do; `note` hears of each step that led to a state not met before. */
export type Space<W> = {
  start: () => W;
  stepsOf: (world: W) => Step<W>[];
  check: (world: W) => void;
  digest: (world: W) => Digest;
  isQuiet: (world: W) => boolean;
  note: (before: W, after: W, reached: Set<string>) => void;
  /** What was reached besides, known when the search is over. */
  seen: ReadonlySet<string>;
};

/** Takes one step. What the core throws is a failure too: it refuses what its own rules led to. */
function take<W extends object>(space: Space<W>, step: Step<W>): { world: W } | { failure: Failure } {
  try {
    const world = step.take();
    space.check(world);
    return { world };
  } catch (fault) {
    if (!(fault instanceof Error)) throw fault;
    const property = fault instanceof Violation ? fault.property : "the core accepts its own state";
    return { failure: { property, seen: fault.message, trace: [] } };
  }
}

/**
 * Breadth-first search through every state of a space. A search that meets `maxStates` ends incomplete, without a word about liveness.
 * `watch` hears how far it is after each step of depth.
 */
export function explore<W extends object>(
  space: Space<W>,
  maxStates = Infinity,
  watch = (_: Found): void => {},
): Found {
  const began = performance.now();
  const start = space.start();
  const states = new States();
  const quiet = new Set([states.meet(space.digest(start), -1, 0).index]);
  let frontier: { index: number; world: W }[] = [{ index: 0, world: start }];
  let depth = 0;
  const reached = new Set<string>();
  const found = (failure: Failure | null, isComplete: boolean): Found => {
    for (const one of space.seen) reached.add(one);
    const seconds = (performance.now() - began) / 1_000;
    return { failure, stateCount: states.count, edgeCount: states.edgeCount, depth, seconds, reached, isComplete };
  };

  for (; frontier.length > 0; depth += 1) {
    const next: typeof frontier = [];
    for (const { index, world } of frontier) {
      states.expand();
      for (const [ordinal, step] of space.stepsOf(world).entries()) {
        const taken = take(space, step);
        if ("failure" in taken) {
          const trace = [...labelsOf(space, states.ordinalsTo(index)), step.label];
          return found({ ...taken.failure, trace }, false);
        }
        const after = taken.world;
        if (after === world) continue;
        const { index: target, isNew } = states.meet(space.digest(after), index, ordinal);
        states.leadsTo(target);
        space.note(world, after, reached);
        if (!isNew) continue;
        if (space.isQuiet(after)) quiet.add(target);
        next.push({ index: target, world: after });
      }
      if (states.count > maxStates) return found(null, false);
    }
    frontier = next;
    watch(found(null, false));
  }
  const stuck = states.firstStuck((index) => quiet.has(index));
  if (stuck === null) return found(null, true);
  const trace = labelsOf(space, states.ordinalsTo(stuck));
  return found({ property: NO_WAY_OUT, seen: "no way out", trace }, true);
}

/** The names of steps that were taken one after the other from the beginning. */
function labelsOf<W>(space: Space<W>, ordinals: readonly number[]): string[] {
  let world = space.start();
  return ordinals.map((ordinal) => {
    const step = space.stepsOf(world)[ordinal];
    if (step === undefined) throw new Error("a step is not there any more");
    world = step.take();
    return step.label;
  });
}

/** Takes the steps of a trace again; the failure that it ends with, or null when it does not any more. Throws when a step is not there. */
export function retrace<W extends object>(space: Space<W>, trace: readonly string[]): Failure | null {
  let world = space.start();
  for (const label of trace) {
    const step = space.stepsOf(world).find((one) => one.label === label);
    if (step === undefined) throw new Error(`no step "${label}" here`);
    const taken = take(space, step);
    if ("failure" in taken) return { ...taken.failure, trace };
    world = taken.world;
  }
  return null;
}
