import { isRefusal, type Quorum, type TrustPolicy } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import { liveRuns } from "#durable-objects/deployment/core/model.ts";
import { renew, renewals } from "#durable-objects/deployment/core/quorum.ts";
import { nextWake } from "#durable-objects/deployment/core/timers.ts";
import {
  at,
  BY_DEFAULT,
  cancel,
  EMPTY,
  heartbeat,
  jobIn,
  KING,
  PAWN,
  QUEEN,
  report,
  ROOK,
  START,
  submission,
  submit,
  submitted,
} from "./deployment-builders.ts";
import { Lane, offers, policyOf } from "./quorum-lane.ts";

const why = { code: "cancelled" as const, detail: "asked for" };
const TWO_OF_THREE: Quorum = { replicas: 3, agree: 2 };

describe("the dispatch of replicas", () => {
  it("offers one replica after the other, each to another runner, as one job of the lane", () => {
    const lane = new Lane(TWO_OF_THREE);
    const other = submitted(lane.state, {}, START);
    lane.state = other.state;
    for (const [index, runner] of [KING, QUEEN, ROOK].entries()) {
      const except = [KING, QUEEN, ROOK].slice(0, index);
      expect(offers(lane)).toMatchObject([{ job: lane.job, needs: index === 0 ? {} : { except } }]);
      expect(lane.claim(runner)).toBe(true);
    }
    expect(liveRuns(lane.record)).toHaveLength(3);
    expect(new Set(liveRuns(lane.record).map(({ epoch }) => epoch)).size).toBe(3);
    expect(offers(lane)).toEqual([]);
    expect(jobIn(lane.state, other.job).state).toBe("queued");
  });

  it("gives no runner a second replica, whatever its pool believes, and offers again a moment later", () => {
    const lane = new Lane(TWO_OF_THREE).begin(KING);
    expect(lane.claim(KING)).toBe(false);
    expect(lane.record.ticket).toBeNull();
    lane.wait(1_000);
    expect(lane.record.ticket).not.toBeNull();
    expect(lane.claim(QUEEN)).toBe(true);
  });

  it("gives an operator one replica where operators have to be distinct, and none to keys that the policy does not name", () => {
    const basis = policyOf({ [KING]: "north", [QUEEN]: "north", [ROOK]: "south" });
    const lane = new Lane({ replicas: 2, agree: 2, distinct: "operator" }, { basis }).begin(KING);
    expect(offers(lane)).toMatchObject([{ needs: { runners: [ROOK] } }]);
    expect(lane.claim(QUEEN)).toBe(false);
    lane.wait(1_000);
    expect(lane.claim(PAWN)).toBe(false);
    lane.wait(1_000);
    expect(lane.claim(ROOK)).toBe(true);
  });

  it("asks now and then whom the policy names, ever more rarely, and offers what is missing to who was added", () => {
    const lane = new Lane({ replicas: 2, agree: 2 }, { basis: policyOf({ [KING]: "a", [QUEEN]: "b" }) }).begin(KING);
    const [first] = renewals(lane.state);
    expect(first?.dueAt).toBe(START + 10_000);
    expect(nextWake(lane.state, null, null)).toBeLessThanOrEqual(START + 10_000);
    const before = lane.record.ticket?.number ?? 0;
    lane.take(renew(lane.state, { job: lane.job, basis: null }, at(START + 10_000)));
    expect(renewals(lane.state).map(({ dueAt }) => dueAt)).toEqual([START + 30_000]);
    expect(lane.record.ticket?.number).toBe(before);
    const basis = policyOf({ [KING]: "a", [QUEEN]: "b", [ROOK]: "c" });
    lane.take(renew(lane.state, { job: lane.job, basis }, at(START + 30_000)));
    expect(lane.record.ticket?.number).toBeGreaterThan(before);
    expect(offers(lane)).toMatchObject([{ needs: { runners: [QUEEN, ROOK] } }]);
  });

  it("says how many different runners are missing", () => {
    const lane = new Lane(TWO_OF_THREE).begin(KING);
    const change = submit(lane.state, submission({}), at(START));
    if (isRefusal(change)) throw new Error(change.detail);
    const told = lane.events.at(-1)?.data.job;
    expect(told?.waiting?.detail).toMatch(/^Needs 2 more different runners\./);
    expect(told?.quorum).toMatchObject({ replicas: 3, agree: 2, liveCount: 1, voteCount: 0, openCount: 2 });
  });

  it("refuses a quorum that the policy can never meet", () => {
    const rules: TrustPolicy["rules"] = [{ ref: "*", require: { k: 3 }, onDivergence: "block" }];
    const few = submit(
      EMPTY,
      submission(
        { quorum: { replicas: 2, agree: 2 } },
        { basis: policyOf({ [KING]: "a", [QUEEN]: "b", [ROOK]: "c" }, { rules }) },
      ),
      at(START),
    );
    expect(few).toMatchObject({ refused: "invalid-body", errors: [{ pointer: "/quorum/replicas" }] });
    const one = { [KING]: "north", [QUEEN]: "north" };
    const alone = submit(
      EMPTY,
      submission({ quorum: { replicas: 2, agree: 2, distinct: "operator" } }, { basis: policyOf(one) }),
      at(START),
    );
    expect(alone).toMatchObject({ refused: "invalid-body", errors: [{ pointer: "/quorum/agree" }] });
  });
});

describe("the votes", () => {
  it("end the job when enough agree, after the replicas that are left have stopped", () => {
    const lane = new Lane(TWO_OF_THREE).begin(KING, QUEEN, ROOK).result(KING, "a");
    expect(lane.record.state).toBe("running");
    lane.result(QUEEN, "a");
    expect(lane.types).toContain("job.verdict");
    expect(lane.record).toMatchObject({
      state: "running",
      command: { kind: "cancel" },
      quorum: { verdict: { verdict: "agreed", agreeing: 2 } },
    });
    lane.result(ROOK, "a", { outcome: "cancelled" });
    expect(lane.record).toMatchObject({ state: "succeeded", reason: null });
  });

  it("do not wait for a replica that never answers longer than its lease and the grace", () => {
    const lane = new Lane(TWO_OF_THREE).begin(KING, QUEEN, ROOK).result(KING, "a").result(QUEEN, "a");
    lane.wait(44_000);
    lane.take(heartbeat(lane.state, { ...lane.proof(ROOK), isolation: null }, at(lane.now)));
    lane.wait(12_000);
    expect(lane.record.state).toBe("succeeded");
  });

  it("take unacknowledged replicas back at once when they are settled", () => {
    const lane = new Lane(TWO_OF_THREE).begin(KING, QUEEN);
    expect(lane.claim(ROOK)).toBe(true);
    lane.result(KING, "a").result(QUEEN, "a");
    expect(lane.record.state).toBe("succeeded");
    expect(heartbeat(lane.state, { ...lane.proof(ROOK), isolation: null }, at(lane.now))).toMatchObject({
      refused: "stale-lease",
    });
  });

  it.each(["cab", "acb", "abc"])("outvote one liar in whatever order they come (%s)", (order) => {
    const lane = new Lane({ replicas: 3, agree: 2 }).begin(KING, QUEEN, ROOK);
    const runners = { a: KING, b: QUEEN, c: ROOK };
    for (const name of order) {
      if (lane.record.quorum?.conclusion !== null) break;
      lane.result(runners[name as "a" | "b" | "c"], name === "c" ? "f" : "a");
    }
    expect(lane.record.quorum?.verdict?.verdict).toBe("agreed");
    expect(lane.record.quorum?.conclusion?.state ?? lane.record.state).toBe("succeeded");
  });

  it("that differ block the job until a tie-break on another runner", () => {
    const lane = new Lane({ replicas: 2, agree: 2 }).begin(KING, QUEEN).result(KING, "a").result(QUEEN, "f");
    expect(lane.record).toMatchObject({
      state: "running",
      quorum: { tieBreakCount: 1, verdict: { verdict: "diverged" } },
    });
    expect(offers(lane)).toMatchObject([{ needs: { except: [KING, QUEEN] } }]);
    lane.begin(ROOK).result(ROOK, "a");
    expect(lane.record.state).toBe("succeeded");
    expect(lane.record.quorum?.verdict).toMatchObject({ verdict: "agreed", diverging: true, agreeing: 2 });
  });

  it("that stay divided fail the job, and name the output", () => {
    const lane = new Lane({ replicas: 2, agree: 2 }).begin(KING, QUEEN).result(KING, "a").result(QUEEN, "b");
    lane.begin(ROOK).result(ROOK, "c");
    expect(lane.record.quorum?.tieBreakCount).toBe(2);
    lane.begin(PAWN).result(PAWN, "d");
    expect(lane.record).toMatchObject({ state: "failed", reason: { code: "not-deterministic", verdict: "diverged" } });
    expect(lane.record.reason?.detail).toContain(
      "output out differs: 1 vote for sha256:aaaaaaaaaaaa…, 1 vote for sha256:bbbbbbbbbbbb…",
    );
  });

  it("that differ fail the job under a rule that blocks, even when the majority is clear", () => {
    const rules: TrustPolicy["rules"] = [{ ref: "*", require: { k: 1 }, onDivergence: "block" }];
    const basis = policyOf({ [KING]: "a", [QUEEN]: "b", [ROOK]: "c" }, { rules });
    const lane = new Lane(TWO_OF_THREE, { basis }).begin(KING, QUEEN, ROOK);
    lane.result(KING, "f", { basis }).result(QUEEN, "a", { basis }).result(ROOK, "a", { basis });
    expect(lane.record).toMatchObject({ state: "failed", reason: { verdict: "diverged" } });
  });

  it("of one failure are outvoted, and of too many fail the job as its runners said", () => {
    const outvoted = new Lane(TWO_OF_THREE).begin(KING, QUEEN, ROOK).result(KING, "a", { outcome: "failed" });
    outvoted.result(QUEEN, "a").result(ROOK, "a");
    expect(outvoted.record.state).toBe("succeeded");
    const failing = new Lane(TWO_OF_THREE).begin(KING, QUEEN).result(KING, "a", { outcome: "failed" });
    failing.result(QUEEN, "a", { outcome: "failed" });
    expect(failing.record).toMatchObject({ state: "failed", reason: { code: "exit-code" } });
    expect(failing.record.runs).toHaveLength(2);
  });

  it("that are too few when the replicas are used up are insufficient", () => {
    const lane = new Lane({ replicas: 2, agree: 2 }).begin(KING, QUEEN).result(KING, "a");
    lane.result(QUEEN, "a", { outcome: "failed" });
    expect(lane.record).toMatchObject({ state: "failed", reason: { code: "rejected", verdict: "insufficient" } });
  });

  it("count nothing once the policy revoked the key or has expired", () => {
    const revoked = { ...BY_DEFAULT, revoked: [{ key: KING, at: new Date(START).toISOString() }] };
    const lane = new Lane({ replicas: 2, agree: 2 }).begin(KING, QUEEN).result(KING, "a");
    lane.result(QUEEN, "a", { basis: revoked });
    expect(lane.record.state).toBe("failed");
    const expired = policyOf({ [KING]: "a", [QUEEN]: "b" }, { expires: new Date(START - 1).toISOString() });
    const late = new Lane({ replicas: 2, agree: 2 }).begin(KING, QUEEN).result(KING, "a", { basis: expired });
    expect(late.record.quorum?.conclusion).toMatchObject({ state: "failed", reason: { verdict: "expired" } });
  });
});

describe("a replica that is lost", () => {
  it("is tried elsewhere, after a rest, while the others go on", () => {
    const lane = new Lane({ replicas: 2, agree: 2 }).begin(KING, QUEEN);
    lane.wait(20_000);
    lane.take(heartbeat(lane.state, { ...lane.proof(QUEEN), isolation: null }, at(lane.now)));
    lane.wait(30_000);
    expect(lane.types).toEqual(expect.arrayContaining(["run.lost"]));
    expect(lane.record).toMatchObject({ state: "running", avoid: [KING] });
    lane.wait(1_000);
    lane.begin(ROOK).result(ROOK, "a").result(QUEEN, "a");
    expect(lane.record.state).toBe("succeeded");
  });

  it("ends the job when its attempts are used up and the others cannot agree without it", () => {
    const lane = new Lane({ replicas: 2, agree: 2 }, { body: { retry: { attempts: 1 } } })
      .begin(KING, QUEEN)
      .result(KING, "a");
    lane.result(QUEEN, "a", { outcome: "refused" });
    expect(lane.record).toMatchObject({ state: "failed", reason: { verdict: "insufficient" } });
  });

  it("sends the job back to the queue when it was the only one", () => {
    const lane = new Lane({ replicas: 2, agree: 2 });
    expect(lane.claim(KING)).toBe(true);
    lane.wait(30_000);
    expect(lane.record.state).toBe("queued");
  });

  it("is not waited for beyond the queue time-out when nobody comes", () => {
    const lane = new Lane({ replicas: 2, agree: 2 }, { body: { timeouts: { queueMs: 10_000 } } })
      .begin(KING)
      .result(KING, "a");
    lane.wait(10_000);
    expect(lane.record).toMatchObject({ state: "failed", reason: { verdict: "insufficient" } });
  });
});

describe("a job of several replicas that is stopped", () => {
  it("tells all of them, and ends when the last has stopped (P15)", () => {
    const lane = new Lane(TWO_OF_THREE).begin(KING, QUEEN);
    expect(lane.claim(ROOK)).toBe(true);
    lane.take(cancel(lane.state, { job: lane.job, force: false, why, ifMatch: null }, at(lane.now)));
    expect(lane.record.state).toBe("cancelling");
    expect(liveRuns(lane.record).map(({ runner }) => runner)).toEqual([KING, QUEEN]);
    lane.result(KING, "a");
    expect(lane.record.state).toBe("cancelling");
    lane.result(QUEEN, "a");
    expect(lane.record.state).toBe("cancelled");
  });

  it("ends at once when no replica runs just now", () => {
    const lane = new Lane(TWO_OF_THREE).begin(KING).result(KING, "a");
    lane.take(cancel(lane.state, { job: lane.job, force: false, why, ifMatch: null }, at(lane.now)));
    expect(lane.record).toMatchObject({ state: "cancelled", ticket: null });
  });

  it("does not succeed any more when it is cancelled while its last replicas stop (P4)", () => {
    const lane = new Lane(TWO_OF_THREE).begin(KING, QUEEN, ROOK).result(KING, "a").result(QUEEN, "a");
    lane.take(cancel(lane.state, { job: lane.job, force: false, why, ifMatch: null }, at(lane.now)));
    lane.result(ROOK, "a");
    expect(lane.record.state).toBe("cancelled");
  });

  it("gives way to a newer job only when the last replica has stopped", () => {
    const lane = new Lane(TWO_OF_THREE).begin(KING, QUEEN);
    const change = submit(lane.state, submission({ mode: "replace" }), at(lane.now));
    if (isRefusal(change)) throw new Error(change.detail);
    lane.take(change);
    const next = change.answer.job;
    expect(change.answer.offer).toBeNull();
    lane.result(KING, "a");
    expect(offers(lane)).toEqual([]);
    lane.wait(60_000);
    expect(lane.record.state).toBe("superseded");
    expect(offers(lane)).toMatchObject([{ job: next }]);
  });

  it("is stopped as a whole by the time-out of one run", () => {
    const lane = new Lane({ replicas: 2, agree: 2 }, { body: { timeouts: { runMs: 10_000 } } }).begin(KING, QUEEN);
    lane.wait(10_000);
    expect(lane.record).toMatchObject({ state: "cancelling", ending: { state: "failed" } });
    lane.result(KING, "a", { outcome: "cancelled" }).result(QUEEN, "a", { outcome: "cancelled" });
    expect(lane.record).toMatchObject({ state: "failed", reason: { code: "run-timeout" } });
  });

  it("never applies: its results are compared", () => {
    const lane = new Lane({ replicas: 2, agree: 2 }).begin(KING);
    const events = [{ type: "phase" as const, phase: "applying" as const, at: new Date(START).toISOString() }];
    lane.take(report(lane.state, { ...lane.proof(KING), number: 1, events }, at(lane.now)));
    expect(lane.record.phase).not.toBe("applying");
  });
});
