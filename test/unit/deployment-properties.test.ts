import {
  isFinalJobState,
  jobOfRun,
  isRefusal,
  OUTCOMES,
  type Expansion,
  type JobId,
  type JobState,
  type Outcome,
  type Refusal,
  type SubmitBody,
} from "@plumule/protocol";
import fc from "fast-check";
import { expect, it } from "vitest";
import { brokenRule } from "#durable-objects/deployment/core/invariants.ts";
import { isEdge, EDGES } from "#durable-objects/deployment/core/edges.ts";
import type { LeaseProof } from "#durable-objects/deployment/core/lease.ts";
import { isOccupying, liveRuns, type State } from "#durable-objects/deployment/core/model.ts";
import { dispatches } from "#durable-objects/deployment/core/tickets.ts";
import { needAmong } from "#durable-objects/deployment/core/turns.ts";
import { fire, nextWake, timers } from "#durable-objects/deployment/core/timers.ts";
import type { Change } from "#durable-objects/deployment/core/work.ts";
import {
  approve,
  at,
  cancel,
  claim,
  draftsOf,
  EMPTY,
  filledIn,
  finish,
  heartbeat,
  KING,
  lease,
  PAWN,
  QUEEN,
  report,
  ROOK,
  SOURCE,
  START,
  submission,
  submit,
  voteOf,
} from "./deployment-builders.ts";

type Step =
  | { do: "submit"; body: Partial<SubmitBody> }
  | { do: "claim"; runner: string }
  | { do: "heartbeat" | "apply"; lease: number }
  | { do: "result"; lease: number; outcome: Outcome; nar: string }
  | { do: "cancel"; job: number; force: boolean }
  | { do: "approve"; job: number }
  | { do: "fill in"; outcome: Outcome }
  | { do: "wait"; ms: number };

const body: fc.Arbitrary<Partial<SubmitBody>> = fc.record(
  {
    mode: fc.constantFrom("queue", "replace", "latest", "reject"),
    interrupt: fc.constantFrom("before-apply", "always", "never"),
    hold: fc.boolean(),
    task: fc.constantFrom(
      { kind: "effect" as const, installable: ".#deploy", plan: "true" },
      { kind: "repository" as const, effects: true },
    ),
    dedupeKey: fc.constantFrom("a", "b"),
    source: fc.constant(SOURCE),
    debounce: fc.constant({ quietMs: 2_000, maxMs: 5_000 }),
    retry: fc.record({ attempts: fc.integer({ min: 1, max: 3 }), onFailure: fc.boolean() }),
    timeouts: fc.record({
      queueMs: fc.integer({ min: 1_000, max: 600_000 }),
      runMs: fc.integer({ min: 1_000, max: 600_000 }),
    }),
  },
  { requiredKeys: [] },
);
const quorum = fc.constantFrom({ replicas: 2, agree: 2 }, { replicas: 3, agree: 2 }, { replicas: 3, agree: 1 });
const small = fc.nat({ max: 30 });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: fc.constant("submit" as const), body }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("submit" as const),
      body: fc.tuple(body, quorum).map(([{ task: _, ...plain }, votes]) => ({ ...plain, quorum: votes })),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant("claim" as const), runner: fc.constantFrom(KING, QUEEN, ROOK, PAWN) }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constantFrom("heartbeat" as const, "apply" as const), lease: small }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("result" as const),
      lease: small,
      outcome: fc.constantFrom(...OUTCOMES, "succeeded" as const),
      nar: fc.constantFrom("a", "a", "b"),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("cancel" as const), job: small, force: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("approve" as const), job: small }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("fill in" as const), outcome: fc.constantFrom(...OUTCOMES) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("wait" as const), ms: fc.constantFrom(10, 1_000, 30_000, 46_000, 700_000) }),
  },
);

/** A task file whose jobs need each other, of which one makes a plan and one asks for more than was submitted. */
const FILE: Expansion["jobs"] = {
  test: { kind: "shell", matrix: { node: ["20", "22"] } },
  deploy: { kind: "effect", planned: true, needs: ["test"] },
  notify: { kind: "shell", secrets: ["KEY"] },
  smoke: { kind: "shell", needs: ["deploy"] },
};

/** A deployment under test: what it decided, and everything that was ever seen of it. */
class Walk {
  state: State = EMPTY;
  now = START;
  readonly seen = new Map<JobId, JobState[]>();
  readonly leases: { job: JobId; proof: LeaseProof }[] = [];
  readonly granted: number[] = [];
  readonly stopped = new Set<JobId>();

  take(answer: Change | Refusal): void {
    if (isRefusal(answer)) return;
    expect(brokenRule(this.state, answer, this.now)).toBeNull();
    expect(answer.state.lane.epoch).toBeGreaterThanOrEqual(this.state.lane.epoch);
    this.state = answer.state;
    for (const { type, data } of answer.events) {
      if (!type.startsWith("job.") || data.job === undefined) continue;
      const state = type.slice(4) as JobState;
      if (["phase", "progress", "waiting", "verdict"].includes(state)) continue;
      const states = this.seen.get(data.job.id) ?? [];
      const from = states.at(-1) ?? null;
      expect(
        EDGES.some((edge) => edge.from === from && edge.to === state && isEdge(from, edge.cause, state)),
        `${from} -> ${state}`,
      ).toBe(true);
      expect(data.job.state).toBe(state);
      if (state === "cancelling") this.stopped.add(data.job.id);
      this.seen.set(data.job.id, [...states, state]);
    }
    this.check();
  }

  /** What has to hold after every decision. */
  check(): void {
    expect(this.state.jobs.filter(isOccupying).length, "P1").toBeLessThanOrEqual(1);
    for (const [job, states] of this.seen) {
      const finals = states.filter((one) => isFinalJobState(one));
      expect(finals.length, "P6: one final event").toBeLessThanOrEqual(1);
      if (finals.length === 1) expect(isFinalJobState(states.at(-1)!), "P6: final states absorb").toBe(true);
      if (this.stopped.has(job)) expect(states, "P4").not.toContain("succeeded");
    }
    const timed = new Set(timers(this.state, null).map(({ job }) => job));
    expect(
      this.state.jobs.filter(({ id }) => !timed.has(id)),
      "P13",
    ).toEqual([]);
    const wake = nextWake(this.state, null, null);
    for (const { at: due } of timers(this.state, null)) expect(wake).toBeLessThanOrEqual(due);
    expect(
      dispatches(this.state).filter(({ kind }) => kind === "put").length,
      "only the head is offered",
    ).toBeLessThanOrEqual(1);
  }

  claimHead(runner: string): void {
    const head = this.state.jobs.find(({ ticket }) => ticket !== null);
    if (head?.ticket == null) return;
    const change = claim(this.state, { job: head.id, ticket: head.ticket.number, lease: lease(runner) }, at(this.now));
    if (isRefusal(change) || change.answer === null) return;
    const { run } = change.answer;
    for (const epoch of this.granted) expect(run.epoch, "epochs grow").toBeGreaterThan(epoch);
    this.granted.push(run.epoch);
    this.leases.push({ job: head.id, proof: { run: run.id, leaseSha256: run.leaseSha256, epoch: run.epoch } });
    this.take(change);
  }

  write(index: number, how: (proof: LeaseProof) => Change | Refusal): void {
    const held = this.leases[index % Math.max(1, this.leases.length)];
    if (held === undefined) return;
    const live = this.state.jobs.some((job) => liveRuns(job).some(({ epoch }) => epoch === held.proof.epoch));
    const answer = how(held.proof);
    if (!live) expect(answer, "P5").toMatchObject({ refused: "stale-lease" });
    this.take(answer);
  }

  wait(ms: number): void {
    this.now += ms;
    for (const timer of timers(this.state, null).filter((one) => one.at <= this.now))
      this.take(fire(this.state, timer, at(this.now)));
    for (const timer of timers(this.state, null))
      expect(timer.at, "nothing due is left over").toBeGreaterThan(this.now);
  }

  approve(id: JobId): void {
    const plan = this.state.jobs.find((one) => one.id === id)?.plan?.sha256 ?? null;
    this.take(approve(this.state, { job: id, commit: null, plan }, at(this.now)));
  }

  finish(proof: LeaseProof, { outcome, nar }: Step & { do: "result" }): Change | Refusal {
    const job = this.state.jobs.find(({ id }) => id === jobOfRun(proof.run));
    const steps = job?.brief.kind === "repository" && job.quorum === undefined ? draftsOf(FILE, job.brief) : [];
    return finish(this.state, voteOf(this.state, proof, outcome, { nar }, { plan: nar, steps }), at(this.now));
  }

  run(one: Step): void {
    const job = (index: number): JobId => this.state.jobs[index % Math.max(1, this.state.jobs.length)]?.id ?? "";
    const why = { code: "cancelled" as const, detail: "asked for" };
    switch (one.do) {
      case "submit":
        return this.take(submit(this.state, submission(one.body, {}, this.now), at(this.now)));
      case "claim":
        return this.claimHead(one.runner);
      case "heartbeat":
        return this.write(one.lease, (proof) => heartbeat(this.state, { ...proof, isolation: null }, at(this.now)));
      case "apply":
        return this.write(one.lease, (proof) =>
          report(
            this.state,
            {
              ...proof,
              number: 1,
              events: [{ type: "phase", phase: "applying", at: new Date(this.now).toISOString() }],
            },
            at(this.now),
          ),
        );
      case "result":
        return this.write(one.lease, (proof) => this.finish(proof, one));
      case "fill in":
        return this.take(filledIn(this.state, one.outcome, this.now));
      case "cancel":
        return this.take(cancel(this.state, { job: job(one.job), force: one.force, why, ifMatch: null }, at(this.now)));
      case "approve":
        return this.approve(job(one.job));
      case "wait":
        return this.wait(one.ms);
    }
  }
}

it("keeps its promises over any sequence of decisions, and ends every job once nobody acts any more", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60, size: "max" }), (steps) => {
      const walk = new Walk();
      for (const one of steps) walk.run(one);
      for (let rounds = 0; walk.state.jobs.length > 0; rounds += 1) {
        expect(rounds, "P6: jobs end by themselves").toBeLessThan(500);
        const due = timers(walk.state, null).map((timer) => timer.at);
        walk.wait(Math.max(1, Math.min(...due) - walk.now));
      }
      for (const states of walk.seen.values()) expect(states.filter((one) => isFinalJobState(one))).toHaveLength(1);
    }),
    { numRuns: 400 },
  );
});

it("starts jobs in the order of their submission, steps of a task file in the place of the job that read it, whatever happens in between", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60, size: "max" }), (steps) => {
      const walk = new Walk();
      for (const one of steps) {
        walk.run(one);
        const head = walk.state.jobs.find(({ ticket }) => ticket !== null);
        const queued = walk.state.jobs.filter(({ state }) => state === "queued");
        // Steps of a task file stand where the job stood that read it; one whose need has not ended lets others pass.
        const places = queued.map(({ id, step: own }) => [own?.parent ?? id, id].join());
        const first = queued[places.indexOf(places.toSorted()[0] ?? "")];
        const isBlocked = first !== undefined && needAmong(walk.state.jobs, first) !== undefined;
        if (head !== undefined && !isOccupying(head) && !isBlocked) expect(head.id).toBe(first?.id);
        expect(walk.state.jobs.map(({ id }) => id)).toEqual(walk.state.jobs.map(({ id }) => id).toSorted());
      }
    }),
    { numRuns: 200 },
  );
});

it("reaches every edge of the state machine", () => {
  const missing = new Set(EDGES.filter(({ cause }) => cause !== "resolved").map(({ from, to }) => `${from} ${to}`));
  const walks = fc.sample(fc.array(step, { minLength: 30, maxLength: 80 }), { numRuns: 1_000, seed: 11 });
  for (const steps of walks) {
    if (missing.size === 0) break;
    const walk = new Walk();
    for (const one of steps) walk.run(one);
    for (const states of walk.seen.values())
      states.forEach((state, index) => missing.delete(`${states[index - 1] ?? null} ${state}`));
  }
  expect([...missing]).toEqual([]);
});
