import { PRIORITIES } from "@plumule/protocol";
import type { Millis } from "@plumule/protocol";
import type { Ticket } from "../calls.ts";

/**
 * What one priority class is worth in waiting time, ms: a `low` job that has waited three times as long stands level with an `urgent` one
 * that comes now. Nothing starves: whatever comes four times this later stands behind, whatever its class.
 */
export const AGING_MS = 10 * 60_000;

/** A ticket with its place in line. `turn`: how many jobs the pool had handed out when this deployment had its last one; 0 for never. */
export type Place = { ticket: Ticket; turn: number };

/**
 * The rank of a ticket, smaller first: the window of time in which it came, moved ahead by its class. Both are fixed when the ticket comes,
 * so the order does not depend on the clock, and nothing has to be recomputed while tickets age.
 */
export function rankOf(priority: Ticket["priority"], queuedAt: Millis): number {
  return Math.floor(queuedAt / AGING_MS) - PRIORITIES.indexOf(priority);
}

/**
 * Who goes first: negative when `a` does. By rank; then the deployment that was served longest ago, so that one with many jobs yields
 * to others of its rank; then the older ticket; then the job id, so that the order is total and the same in every isolate.
 */
export function compare(a: Place, b: Place): number {
  const [one, two] = [a.ticket, b.ticket];
  return (
    rankOf(one.priority, one.queuedAt) - rankOf(two.priority, two.queuedAt) ||
    a.turn - b.turn ||
    one.queuedAt - two.queuedAt ||
    (one.job < two.job ? -1 : Number(one.job > two.job))
  );
}
