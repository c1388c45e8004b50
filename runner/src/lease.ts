import { type Command, type HeartbeatAnswer, type IsolationLevel, LIMITS, type Reason } from "@plumule/protocol";
import { createBackoff, pause } from "./backoff.ts";
import type { BrokerAnswer } from "./broker.ts";

/** Why a run has to stop: the broker says so, or the lease has ended. `graceMs` is how long its processes get. */
export type StopOrder = { reason: Reason; graceMs: number; leaseLost: boolean };

/** A lease that is kept by heartbeats, until `release`. */
export type KeptLease = { release(): void };

/** What keeping a lease needs. `leaseMs` is what the accepted first heartbeat granted, `askedAt` when it was sent, by `clock`. */
export type LeaseDeps = {
  heartbeat: (
    body: { seenCommand: number; waitMs: number; isolation?: IsolationLevel },
    signal: AbortSignal,
  ) => Promise<BrokerAnswer<HeartbeatAnswer>>;
  leaseMs: number;
  askedAt: number;
  firstCommand: Command | null;
  /** Called for every order: a later one may shorten the grace. */
  onStop: (order: StopOrder) => void;
  /** Grace when the lease is lost, ms. */
  graceMs: number;
  /** Monotonic milliseconds: a jump of the wall clock must not end a lease. */
  clock: () => number;
};

/** A short job ends before this, and so costs no long poll, ms. */
const QUIET_START_MS = 400;

/**
 * Keeps a lease until `release`. Each heartbeat is a long poll that the broker answers at once when it has a command. A failed heartbeat
 * never stops the work: only the broker's refusal or the end of the lease by this clock does (self-fencing), because by then another
 * runner may hold it.
 */
export function keepLease(deps: LeaseDeps): KeptLease {
  const released = new AbortController();
  let seenCommand = 0;

  const obey = (command: Command | null): void => {
    if (command === null || command.number <= seenCommand) return;
    seenCommand = command.number;
    deps.onStop({ reason: command.reason, graceMs: command.force ? 0 : command.graceMs, leaseLost: false });
  };
  const lose = (detail: string): void =>
    deps.onStop({ reason: { code: "runner-lost", detail }, graceMs: deps.graceMs, leaseLost: true });

  const beat = async (): Promise<void> => {
    const backoff = createBackoff(200, 5_000);
    let endsAt = deps.askedAt + deps.leaseMs;
    await pause(QUIET_START_MS, released.signal);
    while (!released.signal.aborted) {
      const sentAt = deps.clock();
      const leftMs = endsAt - sentAt;
      if (leftMs <= 0) return lose("the lease ended without a heartbeat reaching the broker");
      // A request that hangs must not outlive the lease unnoticed.
      const limit = AbortSignal.any([released.signal, AbortSignal.timeout(Math.ceil(leftMs))]);
      const waitMs = Math.min(LIMITS.heartbeatHoldMs, Math.floor(leftMs / 3));
      const answer = await deps.heartbeat({ seenCommand, waitMs }, limit);
      if (released.signal.aborted) return;
      if (answer.ok) {
        backoff.reset();
        // The lease counts from when the broker answered; what is known for sure is when this request was sent.
        endsAt = Math.max(endsAt, sentAt + answer.value.leaseMs);
        obey(answer.value.command);
      } else if (answer.retry)
        await pause(Math.min(backoff.next(), Math.max(endsAt - deps.clock(), 0)), released.signal);
      else return lose(answer.problem.detail);
    }
  };

  obey(deps.firstCommand);
  void beat();
  return { release: () => released.abort() };
}
