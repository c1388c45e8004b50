import { LIMITS, type Millis } from "@plumule/protocol";
import { pruneAudit } from "./audit.ts";

/** Rows that one step removes from one table, so that a sweep never holds the object for long. */
const STEP_ROWS = 500;

/** Removes what is past its time or beyond its number, a step of it. Says whether there is more now, or something to come back for. */
export function sweep(sql: SqlStorage, now: Millis): { more: boolean; later: boolean } {
  const old = now - LIMITS.deliveryDedupeMs;
  const removed = [
    remove(
      sql,
      "DELETE FROM sessions WHERE (runner, hash) IN (SELECT runner, hash FROM sessions WHERE expires_at <= ? LIMIT ?)",
      now,
    ),
    remove(
      sql,
      "DELETE FROM logins WHERE (member, hash) IN (SELECT member, hash FROM logins WHERE expires_at <= ? LIMIT ?)",
      now,
    ),
    remove(
      sql,
      "DELETE FROM watching WHERE (actor, deployment) IN (SELECT actor, deployment FROM watching WHERE until <= ? LIMIT ?)",
      now,
    ),
    remove(
      sql,
      "DELETE FROM registrations WHERE id IN (SELECT id FROM registrations WHERE expires_at <= ? LIMIT ?)",
      now,
    ),
    // Below the dedupe window a delivery stays, however many there are: without it a copy would start its jobs again.
    remove(
      sql,
      `DELETE FROM deliveries WHERE number IN (SELECT number FROM deliveries
       WHERE number <= (SELECT max(number) FROM deliveries) - ${LIMITS.deliveriesKept} AND received_at <= ? ORDER BY number LIMIT ?)`,
      old,
    ),
    remove(
      sql,
      "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE id <= (SELECT id FROM jobs ORDER BY id DESC LIMIT 1 OFFSET ?) ORDER BY id LIMIT ?)",
      LIMITS.jobsIndexed,
    ),
    remove(
      sql,
      "DELETE FROM deployments WHERE id IN (SELECT id FROM deployments WHERE removed = 1 AND updated_at <= ? LIMIT ?)",
      new Date(old).toISOString(),
    ),
    pruneAudit(sql, STEP_ROWS),
  ];
  const { later } = sql
    .exec<{ later: number }>(
      "SELECT EXISTS (SELECT 1 FROM sessions) OR EXISTS (SELECT 1 FROM logins) OR EXISTS (SELECT 1 FROM watching) OR EXISTS (SELECT 1 FROM registrations) OR EXISTS (SELECT 1 FROM deployments WHERE removed = 1) AS later",
    )
    .one();
  return { more: removed.includes(STEP_ROWS), later: later === 1 };
}

function remove(sql: SqlStorage, query: string, bound: number | string): number {
  // The cursor's count of written rows includes index entries, so the rows themselves are counted.
  return sql.exec(`${query} RETURNING 1`, bound, STEP_ROWS).toArray().length;
}
