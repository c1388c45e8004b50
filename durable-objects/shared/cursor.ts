import { formatCursor, parseCursor, type RESET_REASONS } from "@plumule/protocol";
import type { EventLog } from "./event-log.ts";

/** Why a cursor cannot be followed. */
export type LostCursor = { lost: (typeof RESET_REASONS)[number] };

/**
 * The sequence after which a cursor goes on. `cursor-unknown`: not a cursor, or ahead of the newest event, so never handed out by this
 * history; `epoch-changed`: of another history; `cursor-expired`: events after it are no longer kept.
 */
export function followCursor(
  text: string,
  log: Pick<EventLog, "head" | "oldest" | "epoch">,
): { after: number } | LostCursor {
  const cursor = parseCursor(text);
  if (cursor === null) return { lost: "cursor-unknown" };
  if (cursor.epoch !== log.epoch()) return { lost: "epoch-changed" };
  if (cursor.sequence > log.head()) return { lost: "cursor-unknown" };
  if (cursor.sequence < log.oldest() - 1) return { lost: "cursor-expired" };
  return { after: cursor.sequence };
}

/** The cursor of a place in this history. */
export function cursorAt(log: Pick<EventLog, "epoch">, sequence: number): string {
  return formatCursor(log.epoch(), sequence);
}
