import { isRefusal, type JobId, type Outcome, type Refusal } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import { resolve } from "#durable-objects/deployment/core/cancel.ts";
import type { LeaseProof } from "#durable-objects/deployment/core/lease.ts";
import type { State } from "#durable-objects/deployment/core/model.ts";
import { fire, type Timer } from "#durable-objects/deployment/core/timers.ts";
import type { Change } from "#durable-objects/deployment/core/work.ts";
import {
  approve,
  at,
  cancel,
  claim,
  finish,
  heartbeat,
  laneWith,
  lease,
  report,
  resultOf,
  SITUATIONS,
  START,
  submission,
  submit,
  type Situation,
} from "./deployment-builders.ts";

type Lane = { state: State; job: JobId; proof: LeaseProof };
type Input = (lane: Lane) => Change | Refusal;

/** Later than every timer of a job with the default time-outs. */
const LATE = START + 100 * 24 * 3600_000;
const why = { code: "cancelled" as const, detail: "asked for" };
const fired =
  (kind: Timer["kind"]): Input =>
  ({ state, job }) =>
    fire(state, { job, kind, at: 0 }, at(LATE));
const ended =
  (outcome: Outcome): Input =>
  ({ state, proof }) =>
    finish(state, resultOf(proof, outcome), at(START + 1_000));
const replaced =
  (interrupt: "before-apply" | "always" | "never"): Input =>
  ({ state }) =>
    submit(state, submission({ mode: "replace", interrupt }), at(START + 1_000));

const INPUTS = {
  approve: ({ state, job }) => approve(state, { job, commit: null }, at(START)),
  claim: ({ state, job }) =>
    claim(state, { job, ticket: state.jobs[0]?.ticket?.number ?? -1, lease: lease() }, at(START)),
  heartbeat: ({ state, proof }) => heartbeat(state, { ...proof, isolation: null }, at(START + 1_000)),
  "heartbeat with an old epoch": ({ state, proof }) =>
    heartbeat(state, { ...proof, epoch: proof.epoch - 1, isolation: null }, at(START + 1_000)),
  "heartbeat with another token": ({ state, proof }) =>
    heartbeat(state, { ...proof, leaseSha256: "other", isolation: null }, at(START + 1_000)),
  report: ({ state, proof }) =>
    report(
      state,
      { ...proof, number: 9, events: [{ type: "phase", phase: "building", at: new Date(START).toISOString() }] },
      at(START + 1_000),
    ),
  "result succeeded": ended("succeeded"),
  "result failed": ended("failed"),
  "result skipped": ended("skipped"),
  "result cancelled": ended("cancelled"),
  "result refused": ended("refused"),
  "result unknown": ended("unknown"),
  cancel: ({ state, job }) => cancel(state, { job, force: false, why, ifMatch: null }, at(START + 1_000)),
  "cancel by force": ({ state, job }) => cancel(state, { job, force: true, why, ifMatch: null }, at(START + 1_000)),
  "replace before apply": replaced("before-apply"),
  "replace always": replaced("always"),
  "replace never": replaced("never"),
  latest: ({ state }) => submit(state, submission({ mode: "latest" }), at(START + 1_000)),
  reject: ({ state }) => submit(state, submission({ mode: "reject" }), at(START + 1_000)),
  "queue timer": fired("queue"),
  "ready timer": fired("ready"),
  "lease timer": fired("lease"),
  "run timer": fired("run"),
  "silence timer": fired("silence"),
} satisfies Record<string, Input>;
type InputName = keyof typeof INPUTS;

/** What each input makes of a job in each situation: its state after it, or the refusal. */
const TABLE: Record<InputName, Record<Situation, string>> = {
  approve: row(
    "queued",
    "!wrong-state",
    "!wrong-state",
    "!wrong-state",
    "!wrong-state",
    "!wrong-state",
    "!wrong-state",
  ),
  claim: row("held", "assigned", "assigned", "running", "running", "cancelling", "cancelling"),
  heartbeat: row("!stale-lease", "!stale-lease", "running", "running", "running", "cancelling", "cancelling"),
  "heartbeat with an old epoch": row(
    "!stale-lease",
    "!stale-lease",
    "!stale-lease",
    "!stale-lease",
    "!stale-lease",
    "!stale-lease",
    "!stale-lease",
  ),
  "heartbeat with another token": row(
    "!stale-lease",
    "!stale-lease",
    "!stale-lease",
    "!stale-lease",
    "!stale-lease",
    "!stale-lease",
    "!stale-lease",
  ),
  report: row("!stale-lease", "!stale-lease", "running", "running", "running", "cancelling", "cancelling"),
  "result succeeded": row(
    "!stale-lease",
    "!stale-lease",
    "succeeded",
    "succeeded",
    "succeeded",
    "cancelled",
    "cancelled",
  ),
  "result failed": row("!stale-lease", "!stale-lease", "failed", "failed", "failed", "cancelled", "cancelled"),
  "result skipped": row("!stale-lease", "!stale-lease", "skipped", "skipped", "skipped", "cancelled", "cancelled"),
  "result cancelled": row(
    "!stale-lease",
    "!stale-lease",
    "cancelled",
    "cancelled",
    "cancelled",
    "cancelled",
    "cancelled",
  ),
  "result refused": row("!stale-lease", "!stale-lease", "queued", "queued", "unknown", "cancelled", "unknown"),
  "result unknown": row("!stale-lease", "!stale-lease", "unknown", "unknown", "unknown", "unknown", "unknown"),
  cancel: row("cancelled", "cancelled", "cancelled", "cancelling", "!in-apply-phase", "cancelling", "cancelling"),
  "cancel by force": row("cancelled", "cancelled", "cancelled", "cancelling", "cancelling", "cancelling", "cancelling"),
  "replace before apply": row(
    "superseded",
    "superseded",
    "superseded",
    "cancelling",
    "running",
    "cancelling",
    "cancelling",
  ),
  "replace always": row(
    "superseded",
    "superseded",
    "superseded",
    "cancelling",
    "cancelling",
    "cancelling",
    "cancelling",
  ),
  "replace never": row("superseded", "superseded", "assigned", "running", "running", "cancelling", "cancelling"),
  latest: row("superseded", "superseded", "assigned", "running", "running", "cancelling", "cancelling"),
  reject: row("!busy", "!busy", "!busy", "!busy", "!busy", "!busy", "!busy"),
  "queue timer": row("failed", "failed", "assigned", "running", "running", "cancelling", "cancelling"),
  "ready timer": row("held", "queued", "assigned", "running", "running", "cancelling", "cancelling"),
  "lease timer": row("held", "queued", "queued", "queued", "unknown", "cancelled", "unknown"),
  "run timer": row("held", "queued", "assigned", "cancelling", "cancelling", "cancelling", "cancelling"),
  "silence timer": row("held", "queued", "assigned", "cancelling", "cancelling", "cancelling", "cancelling"),
};

function row(...cells: [string, string, string, string, string, string, string]): Record<Situation, string> {
  return Object.fromEntries(SITUATIONS.map((situation, index) => [situation, cells[index]])) as Record<
    Situation,
    string
  >;
}

function outcomeOf(lane: Lane, input: Input): string {
  const change = input(lane);
  if (isRefusal(change)) return `!${change.refused}`;
  const job = [...change.jobs, ...change.state.jobs, ...lane.state.jobs].find(({ id }) => id === lane.job);
  return job?.state ?? "gone";
}

describe("every input in every situation of a job", () => {
  for (const name of Object.keys(INPUTS) as InputName[])
    for (const situation of SITUATIONS)
      it(`${name} makes a job that is ${situation} ${TABLE[name]?.[situation]}`, () => {
        const lane = laneWith(situation);
        const before = structuredClone(lane.state);
        expect(outcomeOf(lane, INPUTS[name])).toBe(TABLE[name][situation]);
        expect(lane.state).toEqual(before);
      });

  it("names every cell, and no other", () => {
    expect(Object.keys(TABLE).toSorted()).toEqual(Object.keys(INPUTS).toSorted());
  });
});

describe("a job that has ended", () => {
  const endings = ["succeeded", "failed", "cancelled", "skipped", "unknown"] as const;
  for (const outcome of endings)
    for (const name of Object.keys(INPUTS) as InputName[])
      it(`stays ${outcome} after ${name}`, () => {
        const lane = laneWith("running");
        const end = finish(lane.state, resultOf(lane.proof, outcome), at(START + 500));
        if (isRefusal(end)) throw new Error(end.detail);
        const change = INPUTS[name]({ ...lane, state: end.state });
        expect(isRefusal(change) ? [] : change.jobs.filter(({ id }) => id === lane.job)).toEqual([]);
      });

  it.each(["succeeded", "failed", "cancelled"] as const)("is resolved from unknown to %s by a person", (outcome) => {
    const lane = laneWith("applying");
    const end = finish(lane.state, resultOf(lane.proof, "unknown"), at(START + 500));
    if (isRefusal(end)) throw new Error(end.detail);
    const job = end.jobs.find(({ id }) => id === lane.job)!;
    const change = resolve(end.state, { job, outcome, detail: "looked" }, at(START + 1_000));
    if (isRefusal(change)) throw new Error(change.detail);
    expect(change.answer.state).toBe(outcome);
    expect(resolve(change.state, { job: change.answer, outcome, detail: "again" }, at(START + 2_000))).toMatchObject({
      refused: "wrong-state",
    });
  });
});
