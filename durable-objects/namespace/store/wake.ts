import { LIMITS, type Millis } from "@plumule/protocol";
import { auditDueAt } from "./audit.ts";

/** How long what is to be forgotten may wait, ms: one wake-up an hour, and only of a namespace that something happened in. */
export const SWEEP_MS = 3600_000;

/**
 * When the object has to wake: the next hand-over that is due, the next sweep, or when the audit log has to be signed; null when there is nothing. A row behind another one of its
 * lane is due when that one is gone: an alarm for it would fire again and again.
 */
export function nextWakeAt(sql: SqlStorage, signNotBefore: Millis): Millis | null {
  const { at } = sql
    .exec<{ at: Millis | null }>(
      `SELECT min(at) AS at FROM (
         SELECT min(due_at) AS at FROM outbox AS row WHERE attempts < ?
           AND NOT EXISTS (SELECT 1 FROM outbox AS older WHERE older.lane = row.lane AND older.number < row.number)
         UNION ALL SELECT sweep_at FROM namespace)`,
      LIMITS.outboxAttempts,
    )
    .one();
  const due = auditDueAt(sql);
  const sign = due === null ? null : Math.max(due, signNotBefore);
  return at === null || sign === null ? (at ?? sign) : Math.min(at, sign);
}

/** Plans a sweep, unless one is planned. */
export function scheduleSweep(sql: SqlStorage, now: Millis): void {
  sql.exec("UPDATE namespace SET sweep_at = ? WHERE sweep_at IS NULL", now + SWEEP_MS);
}

/** When the next sweep is planned. */
export function sweepAt(sql: SqlStorage): Millis | null {
  return sql.exec<{ sweep_at: Millis | null }>("SELECT sweep_at FROM namespace").one().sweep_at;
}

/** Plans the next sweep, or none. */
export function planSweep(sql: SqlStorage, at: Millis | null): void {
  sql.exec("UPDATE namespace SET sweep_at = ?", at);
}
