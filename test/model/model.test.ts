import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { isRefusal, JOB_STATES, LIMITS, type Refusal } from "@plumule/protocol";
import { expect, it } from "vitest";
import { briefOf } from "#durable-objects/deployment/bodies.ts";
import { placeBytes } from "#durable-objects/deployment/core/log.ts";
import type { State } from "#durable-objects/deployment/core/model.ts";
import type { Submitted } from "#durable-objects/deployment/core/submit.ts";
import type { Decided } from "#durable-objects/deployment/core/work.ts";
import { type Core, REAL } from "./core.ts";
import { MUTATIONS } from "./mutations.ts";
import { submissionOf } from "./people-steps.ts";
import { describeFailure, describeFound, testOf } from "./report.ts";
import { defaultScopes, type Scope, scopeNamed } from "./scopes.ts";
import type { Found } from "./explore.ts";
import { replay, search } from "./search.ts";
import { emptyWorld, moment } from "./world.ts";

/** States that a seeded bug may hide behind. */
const MUTATION_STATES = 40_000;

const reached = new Set<string>();

it.each(defaultScopes())(
  "keeps every property in every state, and always finds a way to the end: $name",
  { timeout: 240_000 },
  (scope) => {
    const found = search(REAL, scope);
    process.stdout.write(`${describeFound(scope, found)}\n`);
    expect(found.failure === null ? "" : describeFailure(scope, found.failure)).toBe("");
    expect(found.isComplete).toBe(true);
    for (const one of found.reached) reached.add(one);
  },
);

/** Refusals that only a limit gives: no small world has a thousand jobs, or a report of megabytes. */
const LIMITED = new Set(["quota-exceeded", "payload-too-large"]);

/** Every refusal that the core of a deployment names. */
function refusalsOfCore(): string[] {
  const folder = fileURLToPath(new URL("../../durable-objects/deployment/core", import.meta.url));
  const named = readdirSync(folder).flatMap((file) => {
    const source = readFileSync(join(folder, file), "utf8");
    return [...source.matchAll(/refuse\(\s*"([a-z-]+)"/g)].map(([, code = ""]) => code);
  });
  return [...new Set(named)];
}

it("reaches every state of a job, every refusal and every recovery, so that what holds does not hold for want of cases", () => {
  const paths = [
    "assigned -> queued",
    "assigned -> failed",
    "assigned -> cancelled",
    "assigned -> superseded",
    "running -> queued",
    "running -> unknown",
    "running -> cancelling",
    "running -> skipped",
    "running -> held",
    "cancelling -> cancelled",
    "cancelling -> superseded",
    "cancelling -> failed",
    "cancelling -> unknown",
    "held -> queued",
    "held -> failed",
    "queued -> superseded",
    "unknown -> succeeded",
    "granted at submit",
    "a late result",
    "a first heartbeat refused",
    "a heartbeat of a lost lease",
    "a vote outvoted",
    "a replica lost",
    "cancel job refused in-apply-phase",
    "submit refused busy",
    "submit refused gone",
    "submit refused revision-conflict after its pool had answered",
  ];
  const refusals = refusalsOfCore().filter((code) => !LIMITED.has(code));
  expect(refusals.length).toBeGreaterThan(8);
  expect(JOB_STATES.filter((state) => !reached.has(state))).toEqual([]);
  expect(refusals.filter((code) => !reached.has(`refused ${code}`))).toEqual([]);
  expect(paths.filter((path) => !reached.has(path))).toEqual([]);
});

it("reaches the refusals that only limits give", () => {
  const task = { kind: "shell" as const, script: "true" };
  const held = (state: State): Decided<Submitted> | Refusal =>
    REAL.submit(state, submissionOf(briefOf({ task, hold: true }), state.jobs.length), moment());
  let { state } = emptyWorld({ runnerCount: 1, people: [] });
  for (let count = 0; count < LIMITS.pendingJobs; count += 1) {
    const decided = held(state);
    if (!isRefusal(decided)) ({ state } = decided);
  }
  expect(state.jobs).toHaveLength(LIMITS.pendingJobs);
  expect(held(state)).toMatchObject({ refused: "quota-exceeded" });
  expect(placeBytes(LIMITS.logBytes, LIMITS.logBytes, 1)).toMatchObject({ refused: "payload-too-large" });
});

it.each(MUTATIONS)("catches a seeded bug: $name", { timeout: 120_000 }, ({ core, caughtBy, scope: name }) => {
  const scope = scopeNamed(name);
  const { failure, isComplete }: Found = search(core, scope, MUTATION_STATES);
  expect(failure, `survives in "${name}" (explored in full: ${isComplete})`).not.toBeNull();
  if (failure === null) return;
  expect(
    caughtBy.some((property) => failure.property.startsWith(property)),
    describeFailure(scope, failure),
  ).toBe(true);
  expect(() => run(testOf(scope, failure), core)).toThrow("to be null");
});

/** Runs the text of a printed test against a core, which stands for the real one there. */
function run(text: string, core: Core): void {
  // oxlint-disable-next-line typescript/no-implied-eval -- the text that a person would paste has to run as it is
  const test = new Function("it", "expect", "REAL", "scopeNamed", "replay", "search", text);
  const searched = (of: Core, where: Scope): Found => search(of, where, MUTATION_STATES);
  test((_: string, body: () => void) => body(), expect, core, scopeNamed, replay, searched);
}
