import type { Waiting } from "@plumule/protocol";
import type { Told } from "./backlog.ts";

/** What a deployment knows after it was told. */
export function toldOf(waiting: Waiting): Told {
  return {
    reason: waiting.reason,
    nearest: waiting.nearest === null ? null : JSON.stringify(waiting.nearest),
    position: waiting.position,
  };
}

/** `position` and `runners-busy` both mean "in line": the ticket moves by itself. The others need a person. */
const sortOf = (reason: string): string => (reason === "position" || reason === "runners-busy" ? "in line" : reason);

/** Whether two reasons are of different sorts; null is the reason of a ticket that was never explained. */
export function isOtherSort(a: string | null, b: string): boolean {
  return a === null || sortOf(a) !== sortOf(b);
}

/**
 * Whether a deployment should be told again. Every telling costs a request and rows there, so a position is news when it has halved or
 * doubled or when the ticket comes to the front; whoever wants the exact one asks. After an eviction only the stored reason is known, and only a change of its sort is news.
 */
export function isNews(told: Told | null, waiting: Waiting): boolean {
  if (told === null) return true;
  if (told.position === null) return isOtherSort(told.reason, waiting.reason);
  const now = toldOf(waiting);
  const moved = waiting.position * 2 < told.position || waiting.position > told.position * 2 + 1;
  return told.reason !== now.reason || told.nearest !== now.nearest || moved;
}
