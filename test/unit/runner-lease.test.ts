import type { Command, HeartbeatAnswer } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import type { BrokerAnswer } from "../../runner/src/broker.ts";
import { keepLease } from "../../runner/src/lease.ts";

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

const aborted = (signal: AbortSignal, ms: number): Promise<boolean> =>
  new Promise((resolve) => {
    if (signal.aborted) return resolve(true);
    signal.addEventListener("abort", () => resolve(true), { once: true });
    setTimeout(() => resolve(false), ms);
  });

describe("a kept lease", () => {
  it("obeys a command of the first heartbeat at once", () => {
    const { heartbeat } = broker([]);
    const lease = keepLease({
      heartbeat,
      leaseMs: 1_000,
      firstCommand: cancel(1),
      graceMs: 10,
      clock: () => performance.now(),
    });
    expect(lease.stopOrder()).toEqual({
      reason: { code: "cancelled", detail: "by a person" },
      graceMs: 7_000,
      leaseLost: false,
    });
    lease.release();
  });

  it("hands on a cancel with its grace, and a forced one without", async () => {
    const { heartbeat, asked } = broker([granted(cancel(1)), granted(cancel(2, true))]);
    const lease = keepLease({
      heartbeat,
      leaseMs: 1_000,
      firstCommand: null,
      graceMs: 10,
      clock: () => performance.now(),
    });
    expect(await aborted(lease.stop, 2_000)).toBe(true);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(lease.stopOrder()).toMatchObject({ graceMs: 0, leaseLost: false });
    expect(asked.map((one) => one.seenCommand).slice(0, 3)).toEqual([0, 1, 2]);
    lease.release();
  });

  it("goes on working while the broker is away for less than the lease", async () => {
    const { heartbeat } = broker([away, away]);
    const lease = keepLease({
      heartbeat,
      leaseMs: 5_000,
      firstCommand: null,
      graceMs: 10,
      clock: () => performance.now(),
    });
    expect(await aborted(lease.stop, 1_200)).toBe(false);
    lease.release();
  });

  it("ends the work by its own clock when no heartbeat gets through", async () => {
    const lease = keepLease({
      heartbeat: async () => away,
      leaseMs: 700,
      firstCommand: null,
      graceMs: 10,
      clock: () => performance.now(),
    });
    expect(await aborted(lease.stop, 3_000)).toBe(true);
    expect(lease.stopOrder()).toMatchObject({ leaseLost: true, reason: { code: "runner-lost" } });
    lease.release();
  });

  it("ends the work at once when the broker refuses the lease", async () => {
    const { heartbeat } = broker([refused]);
    const lease = keepLease({
      heartbeat,
      leaseMs: 60_000,
      firstCommand: null,
      graceMs: 10,
      clock: () => performance.now(),
    });
    expect(await aborted(lease.stop, 2_000)).toBe(true);
    expect(lease.stopOrder()).toMatchObject({ leaseLost: true, reason: { detail: "another runner has it" } });
    lease.release();
  });

  it("does not stop a run that has released it", async () => {
    const { heartbeat } = broker([]);
    const lease = keepLease({
      heartbeat,
      leaseMs: 600,
      firstCommand: null,
      graceMs: 10,
      clock: () => performance.now(),
    });
    lease.release();
    expect(await aborted(lease.stop, 900)).toBe(false);
  });
});
