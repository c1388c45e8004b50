import { LIMITS, type Millis } from "@plumule/protocol";

/** Something that another object has to be told, until it has answered. */
export type OutboxRow = { number: number; kind: string; payload: string; attempts: number };

/** When the alarm sees to a new row, ms: the flush that follows every commit is nearly always earlier. */
const HEAL_MS = 5_000;

/**
 * Adds a row for the next flush. Rows of one `lane` are handed over one after the other, each when the one before it was answered. One that
 * had used up its attempts gets new ones: it is in the way.
 */
export function insertOutbox(
  sql: SqlStorage,
  kind: string,
  payload: unknown,
  now: Millis,
  lane: string | null = null,
): void {
  if (lane !== null) reviveLane(sql, lane);
  sql.exec(
    "INSERT INTO outbox (kind, payload, attempts, due_at, lane) VALUES (?, ?, 0, ?, ?)",
    kind,
    JSON.stringify(payload),
    now + HEAL_MS,
    lane,
  );
}

/**
 * Adds a row that says no more than that something is to be told as it stands when its turn comes. Of one lane there are two at most: the first may be under
 * way with what was true before.
 */
export function insertReminder(sql: SqlStorage, kind: string, payload: unknown, now: Millis, lane: string): void {
  const { count } = sql.exec<{ count: number }>("SELECT count(*) AS count FROM outbox WHERE lane = ?", lane).one();
  if (count < 2) insertOutbox(sql, kind, payload, now, lane);
  else reviveLane(sql, lane);
}

function reviveLane(sql: SqlStorage, lane: string): void {
  sql.exec("UPDATE outbox SET attempts = 0 WHERE lane = ? AND attempts >= ?", lane, LIMITS.outboxAttempts);
}

/** Adds a row that is not handed over before a time. */
export function insertOutboxFor(sql: SqlStorage, at: Millis, kind: string, payload: unknown): void {
  // As if it had been tried once: a row that was never tried is due at once.
  sql.exec(
    "INSERT INTO outbox (kind, payload, attempts, due_at) VALUES (?, ?, 1, ?)",
    kind,
    JSON.stringify(payload),
    at,
  );
}

/** The rows that are new or due again, oldest first; of each lane the first alone. */
export function readDueOutbox(sql: SqlStorage, now: Millis, limit: number): OutboxRow[] {
  return sql
    .exec<OutboxRow>(
      `SELECT number, kind, payload, attempts FROM outbox AS row
       WHERE (attempts = 0 OR (due_at <= ? AND attempts < ?))
         AND NOT EXISTS (SELECT 1 FROM outbox AS older WHERE older.lane = row.lane AND older.number < row.number)
       ORDER BY number LIMIT ?`,
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
