import { isFinalJobState, LIMITS, type SubmitBody } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import { teardownBody } from "#durable-objects/deployment/bodies.ts";
import { approve, cancel } from "#durable-objects/deployment/core/cancel.ts";
import { brokenRule } from "#durable-objects/deployment/core/invariants.ts";
import { expire } from "#durable-objects/deployment/core/lease.ts";
import { noteLocks, noteSaid } from "#durable-objects/deployment/core/lock-news.ts";
import { type LockWord, lockWord } from "#durable-objects/deployment/core/locks.ts";
import type { State } from "#durable-objects/deployment/core/model.ts";
import { finish } from "#durable-objects/deployment/core/result.ts";
import { resolve } from "#durable-objects/deployment/core/cancel.ts";
import { planSweep, swept } from "#durable-objects/deployment/core/retention.ts";
import { nextWake } from "#durable-objects/deployment/core/timers.ts";
import { jobView } from "#durable-objects/deployment/core/views.ts";
import { Work } from "#durable-objects/deployment/core/work.ts";
import { at, claimed, decided, EMPTY, jobIn, proofOf, resultOf, START, submitted } from "./deployment-builders.ts";

const KING: Partial<SubmitBody> = { locks: ["host:king"] };

/** What the lane has to say; fails when there is nothing. */
function wordOf(state: State): LockWord {
  const word = lockWord(state);
  if (word === null) throw new Error("nothing is to be said of locks");
  return word;
}

function numberOf(state: State, job: string): number {
  return jobIn(state, job).locks?.number ?? Number.NaN;
}

/** The namespace gives a job its locks. */
function given(state: State, job: string, now = START): State {
  return noteLocks(state, { job, number: numberOf(state, job), wait: null }, at(now)).state;
}

/** A lane whose only job has its locks. */
function holding(body: Partial<SubmitBody> = {}): { state: State; job: string } {
  const { state, job } = submitted(EMPTY, { ...KING, ...body });
  return { state: given(state, job), job };
}

describe("a job that names locks", () => {
  it("is offered to nobody before it holds them, and asks for them at once", () => {
    const { state, job } = submitted(EMPTY, KING);
    expect(jobIn(state, job).ticket).toBeNull();
    expect(wordOf(state)).toMatchObject({ released: [], wanted: { job, locks: ["host:king"] }, fresh: true });
    expect(claimed(state, job).answer).toBeNull();
    expect(jobView(state, jobIn(state, job), START).waiting).toMatchObject({
      reason: "position",
      detail: "Asks for lock host:king.",
    });
    const after = given(state, job);
    expect(jobIn(after, job).ticket).not.toBeNull();
    expect(lockWord(after)).toBeNull();
  });

  it("wakes its lane until the namespace has answered, and now and then while it waits", () => {
    const { state, job } = submitted(EMPTY, KING);
    expect(nextWake(state, null, null)).toBeLessThan(START + 10_000);
    const wait = { name: "host:king", ahead: 1 };
    const waiting = noteLocks(state, { job, number: numberOf(state, job), wait }, at(START));
    expect(waiting.events.map(({ type }) => type)).toEqual(["job.waiting"]);
    expect(nextWake(waiting.state, null, null)).toBe(START + 30_000);
    const again = noteLocks(waiting.state, { job, number: numberOf(state, job), wait }, at(START + 30_000));
    expect(again.events).toEqual([]);
    expect(nextWake(again.state, null, null)).toBe(START + 90_000);
  });

  it("asks again later when the namespace cannot be reached, ever more rarely", () => {
    const { state } = submitted(EMPTY, KING);
    const once = noteSaid(state, wordOf(state), { taken: false, news: null }, at(START)).state;
    expect(wordOf(once)).toMatchObject({ fresh: false, dueAt: START + 1_000 });
    const twice = noteSaid(once, wordOf(once), { taken: false, news: null }, at(START)).state;
    expect(wordOf(twice).dueAt).toBe(START + 2_000);
  });

  it("asks when its turn has come, not before", () => {
    const first = submitted(EMPTY, {});
    const second = submitted(first.state, KING, START + 1);
    expect(lockWord(second.state)).toBeNull();
    const ended = decided(
      cancel(second.state, { job: first.job, force: false, why: WHY, ifMatch: null }, at(START + 2)),
    ).state;
    expect(wordOf(ended).wanted?.job).toBe(second.job);
  });

  it("asks only after its burst has settled", () => {
    const { state } = submitted(EMPTY, { ...KING, debounce: { quietMs: 1_000, maxMs: 2_000 } });
    expect(lockWord(state)).toBeNull();
  });

  it("keeps word that it holds them when older word comes late", () => {
    const { state, job } = holding();
    const wait = { name: "host:king", ahead: 1 };
    const late = noteLocks(state, { job, number: numberOf(state, job), wait }, at(START));
    expect(late.state).toEqual(state);
  });

  it("takes no news about another request than its own", () => {
    const { state, job } = submitted(EMPTY, KING);
    const other = noteLocks(state, { job, number: numberOf(state, job) + 1, wait: null }, at(START));
    expect(other.state).toEqual(state);
  });
});

const WHY = { code: "cancelled" as const, detail: "enough" };

describe("locks are given back", () => {
  it("when the job has ended, until the namespace has heard it", () => {
    const { state, job } = holding();
    const assigned = claimed(state, job).state;
    const proof = proofOf(assigned, job);
    const ended = decided(finish(assigned, resultOf(proof, "succeeded"), at(START)));
    expect(ended.jobs.at(-1)?.locks).toBeUndefined();
    const word = wordOf(ended.state);
    expect(word).toMatchObject({ released: [{ job, number: numberOf(state, job) }], wanted: null, fresh: true });
    const unheard = noteSaid(ended.state, word, { taken: false, news: null }, at(START)).state;
    expect(wordOf(unheard)).toMatchObject({ fresh: false, released: [{ job }] });
    expect(lockWord(noteSaid(unheard, word, { taken: true, news: null }, at(START)).state)).toBeNull();
  });

  it("by a job that a late approval puts behind another, and asked for again when it is its turn", () => {
    const early = submitted(EMPTY, { ...KING, hold: true });
    const late = submitted(early.state, KING, START + 1);
    const held = given(late.state, late.job);
    const approved = decided(approve(held, { job: early.job, commit: null }, at(START + 2))).state;
    expect(wordOf(approved)).toMatchObject({ released: [{ job: late.job }], wanted: { job: early.job } });
    const cancelled = decided(
      cancel(approved, { job: early.job, force: false, why: WHY, ifMatch: null }, at(START + 3)),
    ).state;
    expect(wordOf(cancelled).wanted?.job).toBe(late.job);
    expect(wordOf(cancelled).wanted?.number).toBeGreaterThan(numberOf(held, late.job));
  });

  it("not by a job that was lost and is tried again", () => {
    const { state, job } = holding();
    const assigned = claimed(state, job).state;
    const work = new Work(assigned, at(START));
    const leased = work.find(job);
    expire(work, leased!, leased!.runs[0]!);
    const requeued = work.done(null).state;
    expect(jobIn(requeued, job)).toMatchObject({ state: "queued", locks: { heldAt: START } });
  });

  it("not by an effect whose end nobody saw, before a person says how it ended", () => {
    const { state, job } = holding();
    const assigned = claimed(state, job).state;
    const ended = decided(finish(assigned, resultOf(proofOf(assigned, job), "unknown"), at(START)));
    const unknown = ended.jobs.at(-1)!;
    expect(unknown).toMatchObject({ state: "unknown", locks: { heldAt: START } });
    expect(lockWord(ended.state)).toBeNull();
    const many = Array.from({ length: LIMITS.jobsKept }, () => ({ ...unknown, locks: undefined }) as never);
    expect(planSweep([...many, unknown], ended.state.lane).jobs).not.toContain(unknown);
    const input = { job: unknown, outcome: "failed" as const, detail: "looked" };
    const resolved = decided(resolve(ended.state, input, at(START)));
    expect(resolved.answer.locks).toBeUndefined();
    expect(wordOf(resolved.state).released).toMatchObject([{ job }]);
  });

  it("with a deployment that was removed", () => {
    const { state, job } = holding();
    const removed = { ...state.lane, removedAt: START };
    const plan = planSweep([jobIn(state, job)], removed);
    expect(swept(removed, plan, { remaining: false, now: START }).releases).toMatchObject([{ job }]);
  });

  it("a bounded number at a time", () => {
    let state = EMPTY;
    for (let count = 0; count <= LIMITS.lockReleases; count += 1) {
      const one = submitted(state, KING, START + count);
      state = decided(
        cancel(one.state, { job: one.job, force: false, why: WHY, ifMatch: null }, at(START + count)),
      ).state;
    }
    expect(state.lane.releases).toHaveLength(LIMITS.lockReleases);
  });
});

it("a decision is refused that lets a job work without its locks, or keeps them", () => {
  const { state, job } = submitted(EMPTY, KING);
  const held = given(state, job);
  const works = claimed(held, job);
  const bare = { ...works, jobs: works.jobs.map(({ locks: _locks, ...one }) => one) };
  const change = { ...bare, state: { ...bare.state, jobs: bare.jobs } };
  expect(brokenRule(held, change, START)).toMatch(/^P1 a lock has one job/);
  const ended = decided(cancel(held, { job, force: false, why: WHY, ifMatch: null }, at(START)));
  const silent = { ...ended, state: { ...ended.state, lane: { ...ended.state.lane, releases: [] } } };
  expect(brokenRule(held, silent, START)).toMatch(/^P6 locks are given back/);
  const kept = { ...ended, jobs: ended.jobs.map((one) => ({ ...one, locks: jobIn(held, job).locks! })) };
  expect(kept.jobs.every(({ state: is }) => isFinalJobState(is))).toBe(true);
  expect(brokenRule(held, kept, START)).toMatch(/^P6 locks are for whose turn it is/);
});

it("a teardown takes the locks of what is live", () => {
  const task = { kind: "shell" as const, script: "true" };
  expect(teardownBody(task, { task, locks: ["host:king"] }, undefined).locks).toEqual(["host:king"]);
});
