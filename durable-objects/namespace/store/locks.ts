import type { LockName } from "@plumule/protocol";
import type { LockRequest } from "../core/locks.ts";

type Row = {
  position: number;
  deployment: string;
  job: string;
  number: number;
  locks: string;
  asked_at: number;
  held_at: number | null;
  checked_at: number;
};

/** All requests, in the order in which they came. */
export function readLockRequests(sql: SqlStorage): LockRequest[] {
  return sql
    .exec<Row>("SELECT * FROM lock_requests ORDER BY position")
    .toArray()
    .map(({ asked_at, held_at, checked_at, locks, ...rest }) => ({
      ...rest,
      locks: JSON.parse(locks) as LockName[],
      askedAt: asked_at,
      heldAt: held_at,
      checkedAt: checked_at,
    }));
}

/** Stores what a decision changed: a row for each request that is another one than before. */
export function saveLockRequests(sql: SqlStorage, before: readonly LockRequest[], after: readonly LockRequest[]): void {
  const known = new Set(before);
  const left = new Set(after.map(({ position }) => position));
  for (const { position } of before)
    if (!left.has(position)) sql.exec("DELETE FROM lock_requests WHERE position = ?", position);
  for (const one of after)
    if (!known.has(one))
      sql.exec(
        `INSERT OR REPLACE INTO lock_requests (position, deployment, job, number, locks, asked_at, held_at, checked_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
        one.position,
        one.deployment,
        one.job,
        one.number,
        JSON.stringify(one.locks),
        one.askedAt,
        one.heldAt,
        one.checkedAt,
      );
}
