import type { Command, HeartbeatAnswer } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import { pause } from "../../runner/src/backoff.ts";
import type { BrokerAnswer } from "../../runner/src/broker.ts";
import { keepLease, type LeaseDeps, type StopOrder } from "../../runner/src/lease.ts";

type Beat = BrokerAnswer<HeartbeatAnswer>;

const granted = (command: Command | null = null, leaseMs = 1_000): Beat => ({ ok: true, value: { leaseMs, command } });
const problem = { type: "about:blank", title: "", status: 0, code: "unavailable", detail: "gone", next: "" };
const away: Beat = { ok: false, retry: true, problem, logSize: null };
const refused: Beat = {
  ok: false,
  retry: false,
  problem: { ...problem, code: "stale-lease", detail: "another runner has it" },
  logSize: null,
};
const cancel = (number: number, force = false): Command => ({
  number,
  kind: "cancel",
  reason: { code: "cancelled", detail: "by a person" },
  graceMs: 7_000,
  force,
});

/** A broker that answers from a list, then waits as long as it was asked to. */
function broker(answers: Beat[]): {
  asked: { seenCommand: number }[];
  heartbeat: Parameters<typeof keepLease>[0]["heartbeat"];
} {
  const asked: { seenCommand: number }[] = [];
  return {
    asked,
    heartbeat: async (body, signal) => {
      asked.push({ seenCommand: body.seenCommand });
      const next = answers.shift();
      if (next !== undefined) return next;
      await new Promise<void>((resolve) => {
        signal.addEventListener("abort", () => resolve(), { once: true });
        setTimeout(resolve, body.waitMs);
      });
      return signal.aborted ? away : granted();
    },
  };
}

/** A kept lease, with the orders that it gave. */
function keep(deps: Partial<LeaseDeps> & Pick<LeaseDeps, "heartbeat">): {
  orders: StopOrder[];
  stoppedWithin(ms: number): Promise<boolean>;
  release(): void;
} {
  const orders: StopOrder[] = [];
  const stop = new AbortController();
  const lease = keepLease({
    leaseMs: 1_000,
    askedAt: performance.now(),
    firstCommand: null,
    graceMs: 10,
    clock: () => performance.now(),
    ...deps,
    onStop: (order) => (orders.push(order), stop.abort()),
  });
  return {
    orders,
    stoppedWithin: (ms) => pause(ms, stop.signal).then(() => stop.signal.aborted),
    release: () => lease.release(),
  };
}

describe("a kept lease", () => {
  it("obeys a command of the first heartbeat at once", () => {
    const lease = keep({ ...broker([]), firstCommand: cancel(1) });
    expect(lease.orders).toEqual([
      { reason: { code: "cancelled", detail: "by a person" }, graceMs: 7_000, leaseLost: false },
    ]);
    lease.release();
  });

  it("hands on a cancel with its grace, and a forced one after it without", async () => {
    const { heartbeat, asked } = broker([granted(cancel(1)), granted(cancel(2, true))]);
    const lease = keep({ heartbeat });
    expect(await lease.stoppedWithin(2_000)).toBe(true);
    await pause(50);
    expect(lease.orders.map((order) => order.graceMs)).toEqual([7_000, 0]);
    expect(asked.map((one) => one.seenCommand).slice(0, 3)).toEqual([0, 1, 2]);
    lease.release();
  });

  it("goes on working while the broker is away for less than the lease", async () => {
    const lease = keep({ ...broker([away, away]), leaseMs: 5_000 });
    expect(await lease.stoppedWithin(1_200)).toBe(false);
    lease.release();
  });

  it("ends the work by its own clock when no heartbeat gets through", async () => {
    const lease = keep({ heartbeat: async () => away, leaseMs: 700 });
    expect(await lease.stoppedWithin(3_000)).toBe(true);
    expect(lease.orders).toEqual([
      expect.objectContaining({ leaseLost: true, reason: expect.objectContaining({ code: "runner-lost" }) }),
    ]);
    lease.release();
  });

  it("counts the lease from when it was asked for, not from when the answer came", async () => {
    const lease = keep({ heartbeat: async () => away, leaseMs: 60_000, askedAt: performance.now() - 60_000 });
    expect(await lease.stoppedWithin(2_000)).toBe(true);
    expect(lease.orders).toEqual([expect.objectContaining({ leaseLost: true })]);
    lease.release();
  });

  it("ends the work at once when the broker refuses the lease", async () => {
    const lease = keep({ ...broker([refused]), leaseMs: 60_000 });
    expect(await lease.stoppedWithin(2_000)).toBe(true);
    expect(lease.orders).toEqual([
      expect.objectContaining({
        leaseLost: true,
        reason: expect.objectContaining({ detail: "another runner has it" }),
      }),
    ]);
    lease.release();
  });

  it("does not stop a run that has released it", async () => {
    const lease = keep({ ...broker([]), leaseMs: 600 });
    lease.release();
    expect(await lease.stoppedWithin(900)).toBe(false);
  });
});
