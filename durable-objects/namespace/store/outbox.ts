import { LIMITS, type Millis } from "@plumule/protocol";

/** Something that another object has to be told, until it has answered. */
export type OutboxRow = { number: number; kind: string; payload: string; attempts: number };

/** When the alarm sees to a new row, ms: the flush that follows every commit is nearly always earlier. */
const HEAL_MS = 5_000;

/** Adds a row for the next flush. */
export function insertOutbox(sql: SqlStorage, kind: string, payload: unknown, now: Millis): void {
  sql.exec(
    "INSERT INTO outbox (kind, payload, attempts, due_at) VALUES (?, ?, 0, ?)",
    kind,
    JSON.stringify(payload),
    now + HEAL_MS,
  );
}

/** The rows that are new or due again, oldest first. */
export function readDueOutbox(sql: SqlStorage, now: Millis, limit: number): OutboxRow[] {
  return sql
    .exec<OutboxRow>(
      "SELECT number, kind, payload, attempts FROM outbox WHERE attempts = 0 OR (due_at <= ? AND attempts < ?) ORDER BY number LIMIT ?",
      now,
      LIMITS.outboxAttempts,
      limit,
    )
    .toArray();
}

/** Removes a row that was answered. */
export function deleteOutbox(sql: SqlStorage, number: number): void {
  sql.exec("DELETE FROM outbox WHERE number = ?", number);
}

/** Puts a row off after an attempt that failed. */
export function delayOutbox(sql: SqlStorage, number: number, attempts: number, dueAt: Millis): void {
  sql.exec("UPDATE outbox SET attempts = ?, due_at = ? WHERE number = ?", attempts, dueAt, number);
}

/** Gives the rows that had used up their attempts new ones; done whenever the object comes to life. */
export function reviveOutbox(sql: SqlStorage): void {
  sql.exec("UPDATE outbox SET attempts = 0 WHERE attempts >= ?", LIMITS.outboxAttempts);
}
