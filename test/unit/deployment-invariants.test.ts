import type { JobId } from "@plumule/protocol";
import { expect, it } from "vitest";
import { brokenRule } from "#durable-objects/deployment/core/invariants.ts";
import type { Job, Lane, State } from "#durable-objects/deployment/core/model.ts";
import type { Change } from "#durable-objects/deployment/core/work.ts";
import {
  approve,
  at,
  cancel,
  claim,
  decided,
  finish,
  jobIn,
  laneWith,
  lease,
  resultOf,
  START,
  submission,
  submit,
  submitted,
} from "./deployment-builders.ts";

const why = { code: "cancelled" as const, detail: "asked for" };

/** A change in which one job comes out otherwise than it was decided. */
function withJob(change: Change, id: JobId, over: Partial<Job>): Change {
  const spoil = (job: Job): Job => (job.id === id ? spoilt : job);
  const job = change.state.jobs.find((one) => one.id === id) ?? change.jobs.find((one) => one.id === id);
  if (job === undefined) throw new Error(`job ${id} is not touched`);
  const spoilt = { ...job, ...over };
  return { ...change, jobs: change.jobs.map(spoil), state: { ...change.state, jobs: change.state.jobs.map(spoil) } };
}

const withLane = (change: Change, over: Partial<Lane>): Change => ({
  ...change,
  state: { ...change.state, lane: { ...change.state.lane, ...over } },
});

const asked = (state: State, change: Change): string | null => brokenRule(state, change, START);

/** A run that ended, with what it was decided on. */
function ending(situation: Parameters<typeof laneWith>[0]): { state: State; job: JobId; change: Change } {
  const { state, job, proof } = laneWith(situation);
  return { state, job, change: decided(finish(state, resultOf(proof, "succeeded"), at(START))) };
}

/** A grant, with what it was decided on. */
function granting(): { state: State; job: JobId; change: Change } {
  const { state, job } = laneWith("queued");
  const ticket = jobIn(state, job).ticket?.number ?? -1;
  return { state, job, change: claim(state, { job, ticket, lease: lease() }, at(START)) };
}

it("has nothing to say of what the core decides", () => {
  const held = laneWith("held");
  const queued = laneWith("queued");
  const running = laneWith("running");
  const changes: [State, Change][] = [
    [held.state, decided(approve(held.state, { job: held.job, commit: null }, at(START)))],
    [queued.state, decided(submit(queued.state, submission({ mode: "replace" }), at(START)))],
    [running.state, decided(cancel(running.state, { job: null, force: true, why, ifMatch: null }, at(START)))],
  ];
  for (const { state, change } of [ending("running"), ending("cancelling"), granting()]) changes.push([state, change]);
  for (const [state, change] of changes) expect(asked(state, change)).toBeNull();
});

it("keeps one job in the lane", () => {
  const { state, job } = laneWith("running");
  const next = submitted(state);
  const occupant = jobIn(next.state, job);
  const ticketed = {
    ...next.state,
    jobs: next.state.jobs.flatMap((one) =>
      one.id === job ? [] : [{ ...one, ticket: { number: 9, placed: true, dueAt: 0, tryCount: 1 } }],
    ),
  };
  const { answer, ...granted } = claim(ticketed, { job: next.job, ticket: 9, lease: lease() }, at(START));
  expect(answer).not.toBeNull();
  const both = { ...granted, state: { ...granted.state, jobs: [occupant, ...granted.state.jobs] } };
  expect(asked(next.state, both)).toBe(`P1 one job has the lane: jobs ${job} and ${next.job} have it`);
});

it("lets no epoch and no revision shrink, and no lease run ahead of its lane", () => {
  const { state, job, change } = granting();
  const run = change.state.jobs[0]?.runs[0];
  if (run === undefined) throw new Error("nothing was granted");
  expect(asked(state, withLane(change, { epoch: state.lane.epoch - 1 }))).toMatch(/^P5 epochs never shrink/);
  expect(asked(state, withLane(change, { revision: -1 }))).toMatch(/^P5 revisions never shrink/);
  expect(asked(state, withLane(change, { epoch: state.lane.epoch }))).toMatch(/^P5 no lease is ahead of its lane/);
  const runs = [{ ...run, epoch: state.lane.epoch }];
  expect(asked(state, withJob(change, job, { runs }))).toMatch(/^P5 every grant has a higher epoch/);
});

it("lets nobody exchange the lease of a run", () => {
  const { state, job, proof } = laneWith("running");
  const change = decided(cancel(state, { job: null, force: false, why, ifMatch: null }, at(START)));
  const runs = jobIn(change.state, job).runs.map((run) => ({ ...run, leaseSha256: `not ${proof.leaseSha256}` }));
  expect(asked(state, withJob(change, job, { runs }))).toMatch(/^P5 a lease stays what it was/);
});

it("lets no job come back that has ended", () => {
  const { state, job, change } = ending("running");
  const was = jobIn(state, job);
  const back: Change = { state: { ...change.state, jobs: [was] }, jobs: [was], events: [] };
  expect(asked(change.state, back)).toBe(`P6 final states absorb: job ${job} is running again`);
  expect(asked(change.state, withLane(back, { removedAt: START }))).toMatch(/^P6 what was removed stays removed/);
});

it("lets nothing that is being stopped succeed, or go on without a deadline", () => {
  const stopped = ending("cancelling");
  expect(asked(stopped.state, withJob(stopped.change, stopped.job, { state: "succeeded" }))).toBe(
    `P4 what is being stopped is stopped: job ${stopped.job} becomes succeeded`,
  );
  const { state, job } = laneWith("running");
  const change = decided(cancel(state, { job: null, force: false, why, ifMatch: null }, at(START)));
  expect(asked(state, withJob(change, job, { ending: null }))).toMatch(/^P15 a stop has a deadline/);
  expect(asked(state, withLane(change, { epoch: state.lane.epoch }))).toMatch(/^P5 an interruption is a new epoch/);
});

it("counts attempts, and ends a run with its lease", () => {
  const { state, job, change } = granting();
  const { brief, runs } = jobIn(change.state, job);
  expect(asked(state, withJob(change, job, { runs: [...runs, ...runs] }))).toMatch(/^P6 attempts are counted/);
  const once = { ...brief, retry: { attempts: 1 } };
  const again = { ...state, jobs: state.jobs.map((one) => ({ ...one, runs })) };
  expect(asked(again, withJob(change, job, { runs: [...runs, ...runs], brief: once }))).toMatch(/^P6 attempts/);
  const ended = runs.map((run) => ({ ...run, finishedAt: START }));
  expect(asked(state, withJob(change, job, { runs: ended }))).toMatch(/^P1 a lease lives as long/);
});

it("leaves no job without a timer, and the head of the queue alone with a ticket", () => {
  const { state, job } = laneWith("held");
  const change = decided(approve(state, { job, commit: null }, at(START)));
  expect(asked(state, withJob(change, job, { queueUntil: NaN }))).toMatch(/^P13 every job has a timer/);
  expect(asked(state, withJob(change, job, { ticket: null }))).toMatch(/^P13 the head of the queue has a ticket/);
  const running = laneWith("running");
  const second = decided(submit(running.state, submission(), at(START)));
  const ticket = { number: 1, placed: false, dueAt: START, tryCount: 0 };
  expect(asked(running.state, withJob(second, second.answer.job, { ticket }))).toMatch(/^P1 only the head/);
});

it("keeps what it decides on, and tells every change", () => {
  const { state, job, change } = ending("running");
  expect(asked(state, { ...change, events: [] })).toBe(
    `P6 every change is told: nobody hears that job ${job} is succeeded`,
  );
  expect(asked(state, { ...change, state })).toMatch(/^P2 a job is live or final/);
  const granted = granting();
  expect(asked(granted.state, { ...granted.change, state: granted.state })).toMatch(/^P2 a job is live or final/);
});
