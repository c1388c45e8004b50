import { LIMITS, type JobId, type SubmitBody } from "@plumule/protocol";
import { expect, it } from "vitest";
import { briefOf, scheduledBody } from "#durable-objects/deployment/bodies.ts";
import { brokenRule } from "#durable-objects/deployment/core/invariants.ts";
import type { Schedule, State } from "#durable-objects/deployment/core/model.ts";
import { finish, type Reported } from "#durable-objects/deployment/core/result.ts";
import { planSweep } from "#durable-objects/deployment/core/retention.ts";
import { type Fired, fireSchedule, pauseSchedule } from "#durable-objects/deployment/core/firing.ts";
import { dueSchedules } from "#durable-objects/deployment/core/schedules.ts";
import { remove } from "#durable-objects/deployment/core/submit.ts";
import { nextWake } from "#durable-objects/deployment/core/timers.ts";
import { deploymentView, jobView } from "#durable-objects/deployment/core/views.ts";
import type { Decided } from "#durable-objects/deployment/core/work.ts";
import {
  at,
  claimed,
  decided,
  draftsOf,
  EMPTY,
  heartbeat,
  jobIn,
  laneWith,
  proofOf,
  resultOf,
  START,
  submission,
  submitted,
} from "./deployment-builders.ts";

const HOUR_MS = 3600_000;
const NIGHTLY = { name: "nightly", cron: "0 3 * * *" };
const HOURLY = { name: "hourly", cron: "0 * * * *" };
const source = (ref: string, commit = "a".repeat(40)): SubmitBody["source"] => ({
  repository: "https://example.org/garden.git",
  commit,
  ref,
});
const push = (ref = "refs/heads/main"): SubmitBody => ({ task: { kind: "repository" }, source: source(ref) });

/** A lane in which a push has ended and stated these schedules. */
function pushed(
  stated: (typeof NIGHTLY)[] | undefined,
  {
    state = EMPTY,
    body = push(),
    outcome = "succeeded",
    now = START,
  }: { state?: State; body?: SubmitBody; outcome?: "succeeded" | "failed" | "skipped"; now?: number } = {},
): { state: State; job: JobId } {
  const made = submitted(state, body, now);
  return { state: ended(made.state, made.job, { outcome, schedules: stated }, now).state, job: made.job };
}

/** Takes a job to its end; the decision that ends it keeps all promises. */
function ended(state: State, job: JobId, { outcome, ...over }: Partial<Reported>, now = START): Decided<unknown> {
  const given = claimed(state, job, now).state;
  const proof = proofOf(given, job);
  const begun = decided(heartbeat(given, { ...proof, isolation: null }, at(now))).state;
  const decision = decided(finish(begun, resultOf(proof, outcome ?? "succeeded", over), at(now)));
  expect(brokenRule(begun, decision, now)).toBeNull();
  return decision;
}

/** A lane in which the file of a push was read, and its steps ended like this, one after the other. */
function pushedInSteps(
  ends: readonly ("succeeded" | "failed")[],
  before: State = EMPTY,
): Decided<unknown> & { job: JobId } {
  const steps = draftsOf(Object.fromEntries(ends.map((_, index) => [`step-${index}`, { kind: "shell" }])), push());
  const { state, job } = submitted(before, push());
  let decision = ended(state, job, { outcome: "succeeded", schedules: [NIGHTLY], steps });
  expect(decision.state.lane.schedules).toEqual(before.lane.schedules);
  const made = decision.state.jobs.map(({ id }) => id);
  for (const [index, outcome] of ends.entries())
    decision = ended(decision.state, made[index] ?? "", { outcome, schedules: [HOURLY] });
  expect(decision.state.lane.awaited).toEqual([]);
  return { ...decision, job };
}

const only = ({ lane }: State): Schedule => {
  const [schedule, ...more] = lane.schedules;
  if (schedule === undefined || more.length > 0) throw new Error(`${lane.schedules.length} schedules`);
  return schedule;
};

/** What comes of a schedule at a time; the decision keeps all promises. */
function fired(state: State, now: number, schedule = only(state)): Decided<Fired> {
  const body = scheduledBody(push(), schedule.name);
  const made = { ...submission(body, { scheduledBy: schedule.job }, now), brief: briefOf(body) };
  const decision = fireSchedule(state, schedule, made, at(now));
  expect(brokenRule(state, decision, now)).toBeNull();
  return decision;
}

it("are those that the newest run of their branch has stated, and wake the object when the first is due", () => {
  const { state, job } = pushed([NIGHTLY, HOURLY]);
  expect(deploymentView(state).schedules).toEqual([
    { ...NIGHTLY, ref: "refs/heads/main", job, nextAt: "2026-01-01T03:00:00.000Z", last: null },
    { ...HOURLY, ref: "refs/heads/main", job, nextAt: "2026-01-01T01:00:00.000Z", last: null },
  ]);
  const swept = { ...state, lane: { ...state.lane, sweepAt: null } };
  expect(nextWake(swept, null, null)).toBe(START + HOUR_MS);
  const second = pushed([NIGHTLY], { state, body: push("refs/heads/release") });
  expect(second.state.lane.schedules.map(({ name, ref }) => `${name} ${ref}`)).toEqual([
    "nightly refs/heads/main",
    "hourly refs/heads/main",
    "nightly refs/heads/release",
  ]);
  const none = pushed([], { state: second.state });
  expect(only(none.state).ref).toBe("refs/heads/release");
});

it("are none in a lane whose runs state none", () => {
  const { state } = pushed([]);
  expect(state.lane.schedules).toBe(EMPTY.lane.schedules);
  expect(deploymentView(state)).not.toHaveProperty("schedules");
});

it.each<[string, Parameters<typeof pushed>[1]]>([
  ["failed", { outcome: "failed" }],
  ["was about a tag", { body: push("refs/tags/v1") }],
  ["was about a patch", { body: push(`refs/patches/${"a".repeat(40)}`) }],
  [
    "was about no ref",
    { body: { ...push(), source: { repository: "https://example.org/x", commit: "a".repeat(40) } } },
  ],
  [
    "did what somebody else described",
    { body: { task: { kind: "shell", script: "x" }, source: source("refs/heads/main") } },
  ],
  ["a schedule itself has made", { body: { ...push(), task: { kind: "repository", schedule: "nightly" } } }],
])("are not set by a run that %s", (_, over) => {
  expect(pushed([NIGHTLY], over).state.lane.schedules).toEqual([]);
});

it("stay as they are when a run says nothing about them, and are set by one that found nothing to do", () => {
  const { state, job } = pushed([NIGHTLY]);
  const repeated = pushed(undefined, { state, body: { ...push(), task: { kind: "repository", schedule: "nightly" } } })
    .state.lane;
  expect([repeated.schedules, repeated.currentJob]).toEqual([state.lane.schedules, job]);
  expect(pushed(undefined, { state }).state.lane.schedules).toEqual(state.lane.schedules);
  expect(pushed([NIGHTLY], { outcome: "skipped" }).state.lane.schedules).toHaveLength(1);
});

it("are not set by what a stranger has pushed, approved or not, nor by a job that is being stopped", () => {
  const { state, job, proof } = laneWith("running", push());
  const stranger = { author: null, why: "a stranger", approvers: [] };
  const theirs = { ...state, jobs: state.jobs.map((one) => ({ ...one, brief: { ...one.brief, stranger } })) };
  const end = resultOf(proof, "succeeded", { schedules: [NIGHTLY] });
  expect(decided(finish(theirs, end, at(START))).state.lane.schedules).toEqual([]);
  const stopped = laneWith("cancelling", push());
  const late = resultOf(stopped.proof, "succeeded", { schedules: [NIGHTLY] });
  expect(decided(finish(stopped.state, late, at(START))).state.lane.schedules).toEqual([]);
  expect(jobIn(state, job).brief.stranger).toBeUndefined();
});

it("wait for the steps of a file that became jobs, and are forgotten as soon as one has not ended well", () => {
  const { state, job, events } = pushedInSteps(["succeeded", "succeeded"]);
  expect(only(state)).toMatchObject({ ...NIGHTLY, job });
  expect(events.at(-1)?.data.deployment?.schedules).toHaveLength(1);
  expect(pushedInSteps(["succeeded", "failed"]).state.lane.schedules).toEqual([]);
  const kept = pushedInSteps(["failed", "succeeded"], state).state.lane;
  expect(kept.schedules).toEqual(state.lane.schedules);
});

it("keep their time when a push states them again, and get a new one with a new expression", () => {
  const first = pushed([NIGHTLY]);
  const due = START + 3 * HOUR_MS;
  const again = pushed([NIGHTLY], { state: first.state, now: due + 500 });
  expect(only(again.state)).toMatchObject({ job: again.job, dueAt: due });
  const moved = pushed([{ ...NIGHTLY, cron: "30 3 * * *" }], { state: first.state, now: due + 500 });
  expect(only(moved.state).dueAt).toBe(due + HOUR_MS / 2);
});

it("fire once for each time, behind all others, in the name of whoever submitted what they repeat", () => {
  const set = pushed([NIGHTLY]);
  const other = submitted(set.state, push());
  const now = START + 3 * HOUR_MS;
  expect(dueSchedules(other.state.lane, now - 1)).toEqual([]);
  const first = fired(other.state, now);
  const made = first.answer?.job ?? "";
  expect(first.state.jobs.map(({ id, state }) => `${id} ${state}`)).toEqual([`${other.job} queued`, `${made} queued`]);
  expect(jobView(first.state, jobIn(first.state, made), now)).toMatchObject({
    schedule: { name: "nightly", job: set.job },
    actor: "token:test",
    mode: "queue",
    source: { commit: "a".repeat(40) },
  });
  const next = { ...only(set.state), dueAt: now + 24 * HOUR_MS, last: { at: now, job: made, detail: null } };
  expect(only(first.state)).toEqual(next);
  expect(first.events[0]?.data.deployment?.schedules?.[0]?.last?.job).toBe(made);
  // The alarm that was cut short, and a clock that is put back.
  expect(fired(first.state, now, only(other.state))).toMatchObject({ jobs: [], events: [] });
  expect(fired(first.state, now - HOUR_MS)).toMatchObject({ state: first.state });
});

it("fire once for all times that were missed", () => {
  const { state } = pushed([HOURLY]);
  const now = START + 100.5 * HOUR_MS;
  const { state: after, jobs } = fired(state, now);
  expect(jobs).toHaveLength(1);
  expect(only(after).dueAt).toBe(START + 101 * HOUR_MS);
});

it("make no further job while one has not ended, nor in a lane that takes none, and say so", () => {
  const { state } = pushed([HOURLY]);
  const first = fired(state, START + HOUR_MS);
  const made = first.answer?.job ?? "";
  const skipped = fired(first.state, START + 2 * HOUR_MS);
  expect(skipped.state.jobs.map(({ id }) => id)).toEqual([made]);
  expect(only(skipped.state)).toMatchObject({
    dueAt: START + 3 * HOUR_MS,
    last: { at: START + 2 * HOUR_MS, job: null, detail: `Job ${made}, which hourly made before, is queued.` },
  });
  expect(skipped.events.map(({ type }) => type)).toEqual(["deployment.state"]);
  const leaving = submitted(state, {}, START, { teardown: true });
  expect(only(fired(leaving.state, START + HOUR_MS).state).last?.detail).toContain("being torn down");
  const forgotten = fireSchedule(state, only(state), null, at(START + HOUR_MS));
  expect(only(forgotten.state).last?.detail).toContain("is not kept any more");
});

it("stop while somebody has paused them, also over a push, and go on from then", () => {
  const { state } = pushed([HOURLY]);
  const paused = pauseSchedule(state, { name: "hourly", paused: true }, at(START));
  expect(paused.events).toMatchObject([
    { type: "deployment.state", data: { deployment: { schedules: [{ nextAt: null }] } } },
  ]);
  expect(dueSchedules(paused.state.lane, START + 9 * HOUR_MS)).toEqual([]);
  const again = pushed([{ ...HOURLY, cron: "30 * * * *" }], { state: paused.state });
  expect(only(again.state).dueAt).toBeNull();
  const now = START + 9.9 * HOUR_MS;
  expect(only(pauseSchedule(again.state, { name: "hourly", paused: false }, at(now)).state).dueAt).toBe(
    START + 10.5 * HOUR_MS,
  );
  const same = pauseSchedule(state, { name: "hourly", paused: false }, at(now));
  expect([same.state.lane, same.events]).toEqual([state.lane, []]);
});

it("keep the job that they repeat, and go with the deployment", () => {
  const { state, job } = pushed([NIGHTLY]);
  const queued = laneWith("queued");
  const kept = jobIn(queued.state, queued.job);
  const final = Array.from({ length: LIMITS.jobsKept + 2 }, (_, index) => ({ ...kept, id: `job-${index}` }));
  const old = [...final, { ...kept, id: job }];
  expect(planSweep(old, { ...state.lane, currentJob: null }).jobs.map(({ id }) => id)).not.toContain(job);
  const why = { code: "deleted" as const, detail: "gone" };
  const gone = decided(remove(state, { ifMatch: null, why }, at(START))).state;
  expect([gone.lane.schedules, nextWake({ ...gone, lane: { ...gone.lane, sweepAt: null } }, null, null)]).toEqual([
    [],
    null,
  ]);
});
