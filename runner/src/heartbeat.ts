import { type Assignment, type IsolationLevel, LIMITS } from "@plumule/protocol";
import { createBackoff, pause } from "./backoff.ts";
import type { Broker } from "./broker.ts";
import type { Effect, Input } from "./core/model.ts";
import { monotonicMs } from "./process-identity.ts";

/** A short job ends before this, and so costs no long poll, ms. */
const QUIET_START_MS = 400;
/**
 * What is left of a lease when a run's processes are killed, ms: they are gone before the broker gives the job to another runner, which for a
 * stopped job it does at the very end of the lease.
 */
const TO_END_MS = 1_000;

/**
 * Sends the heartbeats of a run, each as the core wants it, and tells what came of it. `leaseUntil` is what an earlier process was granted; without
 * it, as the monotonic clock tells time, the lease is what the first heartbeat asks for, which is tried until the time to acknowledge is over.
 */
export function createHeartbeat({
  broker,
  assignment,
  isolation,
  leaseUntil: granted,
  left,
  tell,
}: {
  broker: Pick<Broker, "heartbeat">;
  assignment: Pick<Assignment, "namespace" | "deployment" | "run" | "epoch" | "leaseToken" | "acknowledgeMs">;
  isolation: IsolationLevel;
  leaseUntil: number | null;
  left: AbortSignal;
  tell: (input: Input) => void;
}): (effect: Extract<Effect, { do: "heartbeat" }>) => Promise<void> {
  const { run } = assignment;
  const backoff = createBackoff(100, 2_000);
  let leaseUntil = granted ?? monotonicMs() + assignment.acknowledgeMs;
  let isQuiet = granted === null;
  return async ({ first, seenCommand }) => {
    // Work that has just begun is usually quicker than a held request.
    if (!first && isQuiet) await pause(QUIET_START_MS, left);
    if (!first) isQuiet = false;
    if (left.aborted) return;
    const sentAt = monotonicMs();
    const leftMs = leaseUntil - sentAt;
    if (leftMs <= 0) return tell({ type: "lease ended", run });
    // A request that hangs must not outlive the lease unnoticed.
    const signal = AbortSignal.any([left, AbortSignal.timeout(Math.ceil(leftMs))]);
    const waitMs = Math.min(LIMITS.heartbeatHoldMs, Math.floor(leftMs / 3));
    const answer = await broker.heartbeat(assignment, first ? { isolation } : { seenCommand, waitMs }, signal);
    if (left.aborted) return;
    if (answer.ok) {
      backoff.reset();
      // The lease counts from when the broker answered; what is known for sure is when this request was sent.
      const untilMs = sentAt + answer.value.leaseMs - TO_END_MS;
      leaseUntil = first ? untilMs : Math.max(leaseUntil, untilMs);
      return tell({ type: "heartbeat accepted", run, untilMs: leaseUntil, command: answer.value.command });
    }
    if (!answer.retry) return tell({ type: "heartbeat refused", run, detail: answer.problem.detail });
    await pause(Math.min(backoff.next(), Math.max(leaseUntil - monotonicMs(), 0)), left);
    tell({ type: "heartbeat failed", run });
  };
}
