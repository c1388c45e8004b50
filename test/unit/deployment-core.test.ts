import { isRefusal, LIMITS, type Derivation, type Waiting } from "@plumule/protocol";
import { expect, it } from "vitest";
import { grantReserved } from "#durable-objects/deployment/core/lease.ts";
import { placeBytes, sealLog } from "#durable-objects/deployment/core/log.ts";
import type { Job, State } from "#durable-objects/deployment/core/model.ts";
import { noteSent, noteWaiting } from "#durable-objects/deployment/core/pool-news.ts";
import { foldDerivations } from "#durable-objects/deployment/core/report.ts";
import { planSweep, swept, withoutLogs } from "#durable-objects/deployment/core/retention.ts";
import { remove } from "#durable-objects/deployment/core/submit.ts";
import { dispatches, offerable } from "#durable-objects/deployment/core/tickets.ts";
import { fire, nextWake } from "#durable-objects/deployment/core/timers.ts";
import { waitingOf } from "#durable-objects/deployment/core/views.ts";
import {
  approve,
  at,
  cancel,
  claim,
  claimed,
  decided,
  EMPTY,
  finish,
  heartbeat,
  jobIn,
  laneWith,
  lease,
  proofOf,
  report,
  resultOf,
  START,
  submission,
  submit,
  submitted,
} from "./deployment-builders.ts";

const waitingFor = (reason: Waiting["reason"], position = 0): Waiting => ({
  reason,
  detail: "",
  needs: null,
  nearest: null,
  position,
  etaMs: null,
});

it("bears a job assigned when its pool has set a runner aside for it", () => {
  const planned = decided(submit(EMPTY, submission(), at(START)));
  expect(planned.answer.offer?.ticket).toMatchObject({ job: planned.answer.job, number: 0 });
  const entry = submission({}, {}, START);
  const first = decided(submit(EMPTY, entry, at(START)));
  const born = decided(submit(EMPTY, { ...entry, lease: { ...lease(), job: first.answer.job } }, at(START + 5)));
  expect(born.events.map(({ type }) => type)).toEqual(["job.queued", "job.assigned", "deployment.state"]);
  expect(born.answer.granted?.run).toMatchObject({ epoch: 1, attempt: 1, state: "assigned" });
  expect(dispatches(born.state)).toEqual([]);
});

it("does not use a runner that was set aside for a job that is no longer first", () => {
  const entry = submission({}, {}, START);
  const { job } = decided(submit(EMPTY, entry, at(START))).answer;
  const { state } = submitted(EMPTY, {}, START);
  const late = decided(submit(state, { ...entry, lease: { ...lease(), job } }, at(START)));
  expect(late.answer).toMatchObject({ granted: null, position: 1 });
});

it("gives ids in the order of submission within one millisecond", () => {
  let state: State = EMPTY;
  const ids: string[] = [];
  for (let count = 0; count < 20; count += 1) {
    const next = submitted(state, {}, START);
    ids.push(next.job);
    ({ state } = next);
  }
  expect(ids).toEqual(ids.toSorted());
  expect(new Set(ids).size).toBe(20);
});

it("offers the first job only, and takes its ticket back when an earlier one is approved", () => {
  const held = submitted(EMPTY, { hold: true });
  const { state, job } = submitted(held.state);
  expect(dispatches(state)).toMatchObject([{ kind: "put", ticket: { job } }]);
  const approved = decided(approve(state, { job: held.job, commit: null }, at(START))).state;
  expect(dispatches(approved)).toMatchObject([
    { kind: "drop", job },
    { kind: "put", ticket: { job: held.job } },
  ]);
  const [drop, put] = dispatches(approved);
  expect(put?.kind === "put" && put.ticket.number).toBeGreaterThan(drop?.kind === "drop" ? drop.number : Infinity);
});

it("repeats what a pool did not answer, later each time, and stops when it did", () => {
  const first = submitted(EMPTY);
  const { job } = first;
  let { state } = first;
  const waits: number[] = [];
  for (let count = 0; count < 4; count += 1) {
    const [dispatch] = dispatches(state);
    ({ state } = noteSent(state, { dispatch: dispatch!, delivered: false, waiting: null }, at(START)));
    waits.push(dispatches(state)[0]!.dueAt - START);
  }
  expect(waits).toEqual([1_000, 2_000, 4_000, 8_000]);
  const sent = noteSent(
    state,
    { dispatch: dispatches(state)[0]!, delivered: true, waiting: waitingFor("no-runner") },
    at(START),
  );
  expect(dispatches(sent.state)).toEqual([]);
  expect(sent.events.map(({ type }) => type)).toEqual(["job.waiting"]);
  // A ticket that may be in the pool is left to its claim.
  expect(grantReserved(sent.state, { job, lease: lease() }, at(START)).answer).toBeNull();
  expect(claimed(sent.state, job).answer).not.toBeNull();
});

it("tells a reason for waiting only when it changes", () => {
  const { state, job } = submitted(EMPTY);
  const first = noteWaiting(state, [{ job, waiting: waitingFor("no-runner", 3) }], at(START));
  const same = noteWaiting(first.state, [{ job, waiting: waitingFor("no-runner", 2) }], at(START));
  const other = noteWaiting(first.state, [{ job, waiting: waitingFor("runners-busy") }], at(START));
  expect([first, same, other].map(({ events }) => events.length)).toEqual([1, 0, 1]);
});

it("refuses a claim for a ticket that is stale", () => {
  const { state, job } = submitted(EMPTY);
  expect(claim(state, { job, ticket: 7, lease: lease() }, at(START)).answer).toBeNull();
  const running = laneWith("running");
  const next = submitted(running.state);
  expect(claim(next.state, { job: next.job, ticket: 0, lease: lease() }, at(START)).answer).toBeNull();
});

it("refuses more pending jobs than the limit, and takes one again when one has ended", () => {
  let state: State = EMPTY;
  for (let count = 0; count < LIMITS.pendingJobs; count += 1) ({ state } = submitted(state));
  expect(submit(state, submission(), at(START))).toMatchObject({ refused: "quota-exceeded" });
  expect(isRefusal(submit(state, submission({ mode: "latest" }), at(START)))).toBe(false);
});

it("explains each place in the lane", () => {
  const running = laneWith("cancelling");
  const second = submitted(running.state, {}, START);
  const third = submitted(second.state, {}, START);
  const reasons = third.state.jobs
    .map((job) => waitingOf(third.state.jobs, job, START))
    .map((waiting) => waiting && [waiting.reason, waiting.position]);
  expect(reasons).toEqual([null, ["stopping-previous", 1], ["position", 2]]);
});

it("tries a lost job elsewhere after a pause, and not before", () => {
  const { state, job, proof } = laneWith("running");
  const after = decided(finish(state, resultOf(proof, "refused"), at(START + 10)));
  expect(offerable(after.state.jobs, START + 10)).toBeNull();
  expect(offerable(after.state.jobs, START + 1_010)?.id).toBe(job);
  expect(jobIn(after.state, job).avoid).toHaveLength(1);
  expect(nextWake(after.state, null, null)).toBe(START + 1_010);
});

it("leaves a job that began to apply to a person when its runner was stopped, whatever phase the runner names last", () => {
  const signing = { type: "phase" as const, phase: "signing" as const, at: new Date(START).toISOString() };
  for (const outcome of ["refused", "cancelled"] as const) {
    const { state, proof } = laneWith("applying");
    const stopped = {
      reason: { code: "runner-stopped" as const, detail: "restarted" },
      events: { number: 2, events: [signing] },
    };
    const after = decided(finish(state, resultOf(proof, outcome, stopped), at(START + 10)));
    expect(after.answer.state).toBe("unknown");
    expect(after.state.jobs).toEqual([]);
  }
});

it("retries a failure of the job itself only when it says so", () => {
  const once = laneWith("running");
  expect(decided(finish(once.state, resultOf(once.proof, "failed"), at(START))).answer.state).toBe("failed");
  const again = laneWith("running", { retry: { onFailure: true, attempts: 2 } });
  const second = decided(finish(again.state, resultOf(again.proof, "failed"), at(START)));
  expect(second.answer.state).toBe("queued");
  let { state } = decided(claimOnce(second.state, again.job));
  state = decided(heartbeat(state, { ...proofOf(state, again.job), isolation: null }, at(START + 5_000))).state;
  expect(decided(finish(state, resultOf(proofOf(state, again.job), "failed"), at(START + 5_000))).answer.state).toBe(
    "failed",
  );
});

function claimOnce(state: State, job: string): ReturnType<typeof claim> {
  const ready = submitted(state, {}, START + 5_000).state;
  return claim(ready, { job, ticket: jobIn(ready, job).ticket!.number, lease: lease() }, at(START + 5_000));
}

it("removes what waits, lets what runs end, and leaves a tombstone", () => {
  const running = laneWith("running");
  const { state, job } = submitted(running.state);
  const why = { code: "deleted" as const, detail: "" };
  const removing = decided(remove(state, { ifMatch: null, why }, at(START)));
  expect(removing.jobs.find(({ id }) => id === job)?.state).toBe("cancelled");
  expect(submit(removing.state, submission(), at(START))).toMatchObject({ refused: "busy" });
  const end = decided(finish(removing.state, resultOf(running.proof, "succeeded"), at(START)));
  expect(end.events.at(-1)?.type).toBe("deployment.deleted");
  expect(end.state.lane.removedAt).toBe(START);
  expect(submit(end.state, submission(), at(START))).toMatchObject({
    refused: "gone",
    next: expect.stringContaining("another name"),
  });
});

it("keeps the events of a large plan small enough for a row each", () => {
  const { state, proof } = laneWith("running");
  const derivations = Array.from({ length: 2_000 }, (_, index): Derivation => ({
    drv: `/nix/store/${"x".repeat(200)}-${index}.drv`,
    name: `n${index}`,
    state: "planned",
  }));
  const told = decided(
    report(state, { ...proof, number: 1, events: [{ type: "plan", derivations, edges: [] }] }, at(START)),
  );
  expect(told.events.length).toBeGreaterThan(1);
  for (const { data } of told.events) expect(JSON.stringify(data).length).toBeLessThan(200_000);
  expect(told.events.flatMap(({ data }) => data.derivations ?? [])).toEqual(derivations);
});

it("folds what is known of each derivation, the newest word winning", () => {
  const batch = (state: Derivation["state"], exitCode?: number): string =>
    JSON.stringify([
      {
        derivations: [{ drv: "a", name: "a", state, ...(exitCode === undefined ? {} : { exitCode }) }],
        edges: [["a", "b"]],
      },
    ]);
  expect(foldDerivations([batch("building"), batch("failed", 1)])).toEqual({
    nodes: [{ drv: "a", name: "a", state: "failed", exitCode: 1 }],
    edges: [["a", "b"]],
  });
});

it("refuses more derivations than are kept of one run", () => {
  const { state, proof, job } = laneWith("running");
  const full: State = {
    ...state,
    jobs: state.jobs.map((one) => ({
      ...one,
      runs: one.runs.map((run) => ({ ...run, derivationCharacters: LIMITS.derivationCharacters })),
    })),
  };
  expect(jobIn(full, job).runs).toHaveLength(1);
  expect(
    report(
      full,
      {
        ...proof,
        number: 1,
        events: [{ type: "derivations", derivations: [{ drv: "a", name: "a", state: "built" }] }],
      },
      at(START),
    ),
  ).toMatchObject({ refused: "payload-too-large" });
});

it.each([
  [10, 10, 5, { repeatedBytes: 0, newBytes: 5 }],
  [10, 4, 6, { repeatedBytes: 6, newBytes: 0 }],
  [10, 8, 5, { repeatedBytes: 2, newBytes: 3 }],
  [10, 11, 1, { refused: "log-gap", headers: { "Plumule-Log-Size": "10" } }],
  [0, 0, LIMITS.logUnpackedBytes + 1, { refused: "payload-too-large" }],
  [LIMITS.logBytes, LIMITS.logBytes, 1, { refused: "payload-too-large" }],
])("places bytes in a log of %i at %i", (size, offset, length, placed) => {
  expect(placeBytes(size, offset, length)).toMatchObject(placed);
});

it.each([
  ["complete", { bytes: 3, sha256: "a", sound: true }, false],
  ["truncated", { bytes: 3, sha256: "a", sound: true }, true],
  ["truncated", { bytes: 2, sha256: "b", sound: true }, false],
  ["mismatch", { bytes: 2, sha256: "b", sound: false }, false],
  ["mismatch", { bytes: 3, sha256: "b", sound: true }, false],
  ["mismatch", { bytes: 4, sha256: "b", sound: true }, false],
])("seals a log as %s", (state, stored, truncated) => {
  expect(sealLog(stored, { bytes: 3, sha256: "a", truncated }).state).toBe(state);
});

it("removes the oldest jobs and logs beyond the limits, and never what is live", () => {
  const done = laneWith("running");
  const end = decided(
    finish(
      done.state,
      resultOf(done.proof, "succeeded", { log: { state: "complete", bytes: 1_000, sha256: null } }),
      at(START),
    ),
  );
  const model = end.jobs.at(-1)!;
  const jobs = Array.from({ length: LIMITS.jobsKept + 150 }, (_, index): Job => ({ ...model, id: `job-${index}` }));
  const lane = { ...end.state.lane, currentJob: jobs.at(-1)!.id };
  const plan = planSweep(jobs, lane);
  expect(plan).toMatchObject({ more: true });
  expect(plan.jobs).toHaveLength(100);
  expect(plan.jobs.map(({ id }) => id)).not.toContain(lane.currentJob);
  expect(plan.logs.every((job) => jobs.indexOf(job) >= LIMITS.logsKept)).toBe(true);
  const few = jobs.slice(0, LIMITS.logsKept + 2);
  expect(planSweep(few, lane).logs).toEqual(few.slice(-2));
  expect(planSweep([...few.slice(0, -2), ...few.slice(-2).map(withoutLogs)], lane)).toEqual({
    jobs: [],
    logs: [],
    more: false,
  });
  expect(planSweep(few, { ...lane, removedAt: START }).jobs.length).toBeGreaterThan(0);
  expect(swept(lane, { jobs: [], more: false }, { remaining: false, now: START }).sweepAt).toBeNull();
});

it("makes every older lease stale when one ends, before another is given", () => {
  const { state, job } = laneWith("running");
  const lost = fire(state, { job, kind: "lease", at: 0 }, at(START + LIMITS.leaseMs));
  expect(lost.state.lane.epoch).toBeGreaterThan(state.lane.epoch);
  expect(lost.events.map(({ type }) => type)).toContain("run.lost");
});

it("does nothing for a timer that is not due any more", () => {
  const { state, job } = laneWith("running");
  const early = fire(state, { job, kind: "lease", at: 0 }, at(START + LIMITS.leaseMs - 1));
  expect(early).toMatchObject({ jobs: [], events: [] });
  expect(early.state).toEqual(state);
});

it("keeps the lease of a job that is being stopped no longer than its ending allows", () => {
  const { state, job, proof } = laneWith("cancelling", { timeouts: { graceMs: 5_000 } });
  const until = START + 5_000 + LIMITS.leaseMs;
  const beat = decided(heartbeat(state, { ...proof, isolation: null }, at(until - 10)));
  expect(jobIn(beat.state, job).runs.at(-1)?.leaseUntil).toBe(until);
});

it("keeps a lease token until it was delivered, and no longer", () => {
  const offer = lease();
  const { state, job } = submitted(EMPTY);
  const first = claimed(state, job, START, offer);
  expect(claimed(first.state, job, START, offer).answer?.job).toEqual(first.answer?.job);
  expect(jobIn(first.state, job).runs.at(-1)?.undelivered).toBe(offer.leaseToken);
  const beat = decided(heartbeat(first.state, { ...proofOf(first.state, job), isolation: null }, at(START)));
  expect(JSON.stringify(beat.state)).not.toContain(offer.leaseToken);
  expect(claimed(beat.state, job, START, offer).answer).toBeNull();
});

it("applies a batch of events once", () => {
  const { state, proof } = laneWith("running");
  const phase = (name: "building" | "signing") => ({
    ...proof,
    number: 3,
    events: [{ type: "phase" as const, phase: name, at: "" }],
  });
  const first = decided(report(state, phase("building"), at(START)));
  const again = decided(report(first.state, phase("signing"), at(START)));
  expect(again).toMatchObject({ answer: { number: 3 }, events: [], jobs: [] });
});

it("counts the longest wait of a burst from its first submit", () => {
  const debounce = { quietMs: 4_000, maxMs: 5_000 };
  const first = submitted(EMPTY, { mode: "latest", debounce }, START);
  const second = submitted(first.state, { mode: "latest", debounce }, START + 3_000);
  expect(jobIn(second.state, second.job).ready).toEqual({ at: START + 5_000, reason: "debounce" });
  expect(offerable(second.state.jobs, START + 4_999)).toBeNull();
  expect(nextWake(second.state, null, null)).toBe(START + 5_000);
});

it("gives up taking a ticket out of a pool that never answers, because its claim would be refused anyway", () => {
  const { state, job } = submitted(EMPTY);
  const why = { code: "cancelled" as const, detail: "" };
  let cancelled = decided(cancel(state, { job, force: false, why, ifMatch: null }, at(START))).state;
  for (let count = 0; count < LIMITS.outboxAttempts; count += 1) {
    const [dispatch] = dispatches(cancelled);
    expect(dispatch).toMatchObject({ kind: "drop", job, fresh: count === 0 });
    cancelled = noteSent(cancelled, { dispatch: dispatch!, delivered: false, waiting: null }, at(START)).state;
  }
  expect(dispatches(cancelled)).toEqual([]);
});
