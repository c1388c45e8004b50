import { checkWorld, Violation } from "./always.ts";
import { brokerSteps } from "./broker-steps.ts";
import type { Core } from "./core.ts";
import { digest, encode } from "./encode.ts";
import { peopleSteps } from "./people-steps.ts";
import { runnerSteps } from "./runner-steps.ts";
import { settle } from "./settle.ts";
import type { Step } from "./step.ts";
import type { Scope } from "./scopes.ts";
import { emptyWorld, type World } from "./world.ts";

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
  return scope.settles ? steps.map(({ label, take }) => ({ label, take: () => settle(take()) })) : steps;
}

/** Nothing is left to do: all jobs have ended, and no runner works or has results. */
function isQuiet({ state, runners }: World): boolean {
  return state.jobs.length === 0 && runners.every(({ run, spool }) => run === null && spool.length === 0);
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
 * Breadth-first search through every state of a scope. States are kept as 53 bits, the way to each by its first predecessor. A search that
 * meets `maxStates` ends incomplete, without a word about liveness.
 */
export function search(core: Core, scope: Scope, maxStates = Infinity): Found {
  const began = performance.now();
  const start = emptyWorld(scope.runnerCount);
  const known = new Map<number, number>([[digest(encode(start)), 0]]);
  const [parents, labels, depths] = [[-1], [""], [0]];
  const [from, to]: [number[], number[]] = [[], []];
  const quiet: number[] = [0];
  let frontier: { index: number; world: World }[] = [{ index: 0, world: start }];
  const reached = new Set<string>();
  const traceTo = (index: number): string[] => {
    const trace: string[] = [];
    for (let at = index; at > 0; at = parents[at] ?? 0) trace.unshift(labels[at] ?? "");
    return trace;
  };
  const found = (failure: Failure | null, isComplete: boolean): Found => {
    for (const one of scope.seen) reached.add(one);
    const seconds = (performance.now() - began) / 1_000;
    return {
      failure,
      stateCount: known.size,
      edgeCount: from.length,
      depth: depths.at(-1) ?? 0,
      seconds,
      reached,
      isComplete,
    };
  };

  while (frontier.length > 0) {
    const next: typeof frontier = [];
    for (const { index, world } of frontier) {
      for (const step of stepsOf(core, scope, world)) {
        const after = take(step);
        if ("trace" in after) return found({ ...after, trace: [...traceTo(index), step.label] }, false);
        if (after === world) continue;
        const bits = digest(encode(after));
        let target = known.get(bits);
        if (target === undefined) {
          target = known.size;
          known.set(bits, target);
          parents.push(index);
          labels.push(step.label);
          depths.push((depths[index] ?? 0) + 1);
          if (isQuiet(after)) quiet.push(target);
          note(world, after, reached);
          next.push({ index: target, world: after });
        }
        from.push(index);
        to.push(target);
      }
      if (known.size > maxStates) return found(null, false);
    }
    frontier = next;
  }
  const stuck = firstStuck(known.size, from, to, quiet);
  return found(
    stuck === null
      ? null
      : { property: "from every state all jobs can end", seen: "no way out", trace: traceTo(stuck) },
    true,
  );
}

function note(before: World, after: World, reached: Set<string>): void {
  after.told.forEach(({ state }, index) => {
    const was = before.told[index]?.state ?? null;
    if (state !== null && state !== was) reached.add(`${was} -> ${state}`).add(state);
  });
}

/** The first state from which no way leads to a quiet one, or null: backwards from the quiet ones, everything has to be met. */
function firstStuck(
  count: number,
  from: readonly number[],
  to: readonly number[],
  quiet: readonly number[],
): number | null {
  const starts = new Int32Array(count + 1);
  for (const target of to) starts[target + 1] = (starts[target + 1] ?? 0) + 1;
  for (let index = 0; index < count; index += 1) starts[index + 1] = (starts[index + 1] ?? 0) + (starts[index] ?? 0);
  const places = starts.slice();
  const sources = new Int32Array(to.length);
  to.forEach((target, edge) => {
    const place = places[target] ?? 0;
    sources[place] = from[edge] ?? 0;
    places[target] = place + 1;
  });
  const met = new Uint8Array(count);
  const open = [...quiet];
  for (const index of open) met[index] = 1;
  for (let index = open.pop(); index !== undefined; index = open.pop())
    for (let edge = starts[index] ?? 0; edge < (starts[index + 1] ?? 0); edge += 1) {
      const source = sources[edge] ?? 0;
      if (met[source] === 1) continue;
      met[source] = 1;
      open.push(source);
    }
  const stuck = met.indexOf(0);
  return stuck < 0 ? null : stuck;
}

/** Takes the steps of a trace again; the failure that it ends with, or null when it does not any more. Throws when a step is not there. */
export function replay(core: Core, scope: Scope, trace: readonly string[]): Failure | null {
  let world = emptyWorld(scope.runnerCount);
  for (const label of trace) {
    const step = stepsOf(core, scope, world).find((one) => one.label === label);
    if (step === undefined) throw new Error(`no step "${label}" here`);
    const after = take(step);
    if ("trace" in after) return { ...after, trace };
    world = after;
  }
  return null;
}
