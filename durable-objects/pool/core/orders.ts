import type { Millis, RunnerOrder } from "@plumule/protocol";
import type { DrainOrder } from "../calls.ts";

/** What a runner that has heard of order `seen` is still to be told; one that names none cannot read an order. */
export function orderFor(order: DrainOrder | undefined, seen: number | undefined, now: Millis): RunnerOrder | null {
  if (order === undefined || seen === undefined || order.number <= seen) return null;
  const { number, drain } = order;
  // A runner that was never told to stop need not be told to go on.
  if (drain === null) return seen === 0 ? null : { number, drain };
  const { note, deadlineAt, end } = drain;
  return { number, drain: { note, end, deadlineMs: deadlineAt === null ? null : Math.max(0, deadlineAt - now) } };
}
