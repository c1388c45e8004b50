import type { SubmitBody } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import { assignmentOf } from "#durable-objects/deployment/bodies.ts";
import type { LeaseProof } from "#durable-objects/deployment/core/lease.ts";
import type { State } from "#durable-objects/deployment/core/model.ts";
import { dispatches } from "#durable-objects/deployment/core/tickets.ts";
import { jobView } from "#durable-objects/deployment/core/views.ts";
import {
  approve,
  at,
  cancel,
  claimed,
  decided,
  EMPTY,
  finish,
  heartbeat,
  jobIn,
  KING,
  lease,
  proofOf,
  QUEEN,
  report,
  resultOf,
  START,
  submitted,
} from "./deployment-builders.ts";

const PLAN = "a".repeat(64);
const OTHER = "b".repeat(64);
const EFFECT: Partial<SubmitBody> = { task: { kind: "effect", installable: ".#deploy" } };
const PLANNED: Partial<SubmitBody> = { task: { kind: "effect", installable: ".#deploy", plan: "terraform plan" } };
const APPLYING = { type: "phase" as const, phase: "applying" as const, at: new Date(START).toISOString() };

/** Gives a job to a runner that acknowledges it. */
function begun(state: State, job: string, now = START, runner = KING): { state: State; proof: LeaseProof } {
  const taken = claimed(state, job, now, lease(runner)).state;
  const proof = proofOf(taken, job);
  return { state: decided(heartbeat(taken, { ...proof, isolation: "bwrap" }, at(now))).state, proof };
}

/** A job whose plan is made and held. */
function held(): { state: State; job: string } {
  const { state, job } = submitted(EMPTY, PLANNED);
  const { state: running, proof } = begun(state, job);
  return { state: decided(finish(running, resultOf(proof, "skipped", { plan: PLAN }), at(START))).state, job };
}

describe("a run that begins to apply", () => {
  it("is refused when the job was stopped before, and the job ends as what stopped it says", () => {
    const { state, job } = submitted(EMPTY, EFFECT);
    const { state: running, proof } = begun(state, job);
    const replaced = submitted(running, { ...EFFECT, mode: "replace" }, START + 1).state;
    expect(jobIn(replaced, job).state).toBe("cancelling");
    const wish = { ...proof, number: 1, events: [APPLYING] };
    expect(report(replaced, wish, at(START + 2))).toMatchObject({ refused: "wrong-state" });
    // What was gathered before still may ride on the result.
    const ended = decided(
      finish(replaced, resultOf(proof, "cancelled", { events: { number: 1, events: [APPLYING] } }), at(START + 3)),
    );
    expect(ended.answer.state).toBe("superseded");
  });

  it("is not stopped by a replacement once it was taken", () => {
    const { state, job } = submitted(EMPTY, EFFECT);
    const { state: running, proof } = begun(state, job);
    const applying = decided(report(running, { ...proof, number: 1, events: [APPLYING] }, at(START))).state;
    const replaced = submitted(applying, { ...EFFECT, mode: "replace" }, START + 1).state;
    expect(jobIn(replaced, job)).toMatchObject({ state: "running", phase: "applying" });
  });
});

describe("an effect with a plan", () => {
  it("may not apply before its plan is made and approved", () => {
    const { state, job } = submitted(EMPTY, PLANNED);
    const { state: running, proof } = begun(state, job);
    expect(report(running, { ...proof, number: 1, events: [APPLYING] }, at(START))).toMatchObject({
      refused: "wrong-state",
    });
  });

  it("is held with its plan while others have the lane, and says what to do", () => {
    const { state, job } = held();
    const view = jobView(state, jobIn(state, job), START);
    expect(view).toMatchObject({
      state: "held",
      phase: null,
      plan: { sha256: PLAN, approvedBy: null },
      waiting: { reason: "approval" },
    });
    const next = submitted(state, EFFECT, START + 1);
    expect(begun(next.state, next.job, START + 1).proof.run).toBeTruthy();
  });

  it.each([
    ["no plan", null],
    ["another plan", OTHER],
  ])("is not approved with %s", (_, plan) => {
    const { state, job } = held();
    expect(approve(state, { job, commit: null, plan }, at(START))).toMatchObject({
      refused: "conflict",
      next: expect.stringContaining(`--plan ${PLAN}`),
    });
  });

  it("is not approved with a plan that it has not made", () => {
    const { state, job } = submitted(EMPTY, { ...PLANNED, hold: true });
    expect(approve(state, { job, commit: null, plan: PLAN }, at(START))).toMatchObject({ refused: "conflict" });
  });

  it("applies exactly the approved plan, by whichever runner, and as often as infrastructure fails", () => {
    const { state: before, job } = held();
    let state = decided(approve(before, { job, commit: null, plan: PLAN }, at(START + 1, "token:anna"))).state;
    expect(jobIn(state, job).plan).toMatchObject({ approved: { actor: "token:anna", at: START + 1 } });
    const spec = { task: { kind: "effect" as const, installable: ".#deploy", plan: "terraform plan" } };
    const taken = claimed(state, job, START + 1, lease(QUEEN));
    const leased = { job: jobIn(taken.state, job), run: jobIn(taken.state, job).runs.at(-1)! };
    expect(assignmentOf(state.lane, leased, spec, { now: START + 1, lastSuccess: undefined }).plan).toEqual({
      sha256: PLAN,
    });
    // The run that made the plan is none of its three attempts.
    for (let attempt = 1; attempt <= 3; attempt += 1) {
      const now = START + attempt * 600_000;
      const { ready: _, ...rest } = jobIn(state, job);
      state = {
        ...state,
        jobs: [{ ...rest, ready: null, ticket: { number: 99, placed: true, dueAt: now, tryCount: 0 } }],
      };
      const { state: running, proof } = begun(state, job, now, KING);
      const lost = decided(finish(running, resultOf(proof, "refused"), at(now)));
      expect(lost.answer.state).toBe(attempt < 3 ? "queued" : "failed");
      state = lost.state;
    }
  });

  it("is cancelled or replaced like any job that is held", () => {
    const { state, job } = held();
    const why = { code: "cancelled" as const, detail: "no" };
    expect(decided(cancel(state, { job, force: false, why, ifMatch: null }, at(START))).state.jobs).toEqual([]);
    expect(submitted(state, { mode: "latest" }, START + 1).state.jobs).toHaveLength(1);
  });
});

describe("the runner that keeps state files", () => {
  function kept(): State {
    const { state, job } = submitted(EMPTY, EFFECT);
    const { state: running, proof } = begun(state, job);
    const told = decided(report(running, { ...proof, number: 1, events: [{ type: "state" }] }, at(START))).state;
    expect(told.lane.stateKeeper).toBe(KING);
    return decided(finish(told, resultOf(proof, "succeeded"), at(START))).state;
  }
  const needsOf = (state: State): unknown =>
    dispatches(state).flatMap((one) => (one.kind === "put" ? [one.ticket.needs] : []))[0];

  it("is the one that is given the next effect of the deployment, and no other", () => {
    const next = submitted(kept(), EFFECT, START + 1);
    expect(needsOf(next.state)).toMatchObject({ runners: [KING] });
    expect(claimed(next.state, next.job, START + 1, lease(QUEEN)).answer).toBeNull();
    expect(claimed(next.state, next.job, START + 1, lease(KING)).answer).not.toBeNull();
  });

  it("has no claim on other jobs, nor on an effect that moves the state", () => {
    const build = submitted(kept(), {}, START + 1);
    expect(needsOf(build.state)).not.toHaveProperty("runners");
    const moving = submitted(kept(), { task: { kind: "effect", installable: ".#deploy", moveState: true } }, START + 1);
    expect(claimed(moving.state, moving.job, START + 1, lease(QUEEN)).answer).not.toBeNull();
  });
});
