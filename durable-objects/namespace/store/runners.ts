import type { Millis, PoolName, RunnerId } from "@plumule/protocol";
import type { DrainOrder } from "../../pool/calls.ts";

/** A registered runner. A revoked one stays, so that its key cannot come back. */
export type Runner = {
  id: RunnerId;
  name: string;
  pool: PoolName;
  drained: boolean;
  /** The newest order to it; null when it never was drained. */
  order: DrainOrder | null;
  registeredAt: Millis;
  revokedAt: Millis | null;
};

/** A one-time registration token as stored. */
export type Registration = { id: string; hash: string; pool: PoolName; expiresAt: Millis };

type RunnerRow = {
  id: string;
  name: string;
  pool: string;
  drained: number;
  drain_order: string | null;
  registered_at: Millis;
  revoked_at: Millis | null;
};

/** Reads one runner, or null. */
export function findRunner(sql: SqlStorage, id: RunnerId): Runner | null {
  const [row] = sql.exec<RunnerRow>("SELECT * FROM runners WHERE id = ?", id).toArray();
  return row === undefined ? null : runnerOf(row);
}

/** True for a runner that may do what runners do. */
export function isActive(runner: Runner | null): runner is Runner {
  return runner !== null && runner.revokedAt === null;
}

/** Runners by id, after one of them. */
export function readRunners(sql: SqlStorage, after: RunnerId | null, limit: number): Runner[] {
  return sql
    .exec<RunnerRow>("SELECT * FROM runners WHERE id > ? ORDER BY id LIMIT ?", after ?? "", limit)
    .toArray()
    .map(runnerOf);
}

/** Keys of the runners that are not revoked, the longest registered first. */
export function readRunnerKeys(sql: SqlStorage, limit: number): RunnerId[] {
  return sql
    .exec<{ id: string }>("SELECT id FROM runners WHERE revoked_at IS NULL ORDER BY registered_at, id LIMIT ?", limit)
    .toArray()
    .map(({ id }) => id);
}

/** How many runners there are, the revoked ones too. */
export function countRunners(sql: SqlStorage): number {
  return sql.exec<{ count: number }>("SELECT count(*) AS count FROM runners").one().count;
}

/** Stores a runner, new or changed. */
export function saveRunner(sql: SqlStorage, runner: Runner): void {
  sql.exec(
    "INSERT OR REPLACE INTO runners (id, name, pool, drained, registered_at, revoked_at, drain_order) VALUES (?, ?, ?, ?, ?, ?, ?)",
    runner.id,
    runner.name,
    runner.pool,
    runner.drained ? 1 : 0,
    runner.registeredAt,
    runner.revokedAt,
    runner.order === null ? null : JSON.stringify(runner.order),
  );
}

function runnerOf(row: RunnerRow): Runner {
  return {
    id: row.id,
    name: row.name,
    pool: row.pool,
    drained: row.drained === 1,
    order: row.drain_order === null ? null : (JSON.parse(row.drain_order) as DrainOrder),
    registeredAt: row.registered_at,
    revokedAt: row.revoked_at,
  };
}

/** Reads a registration token that has not been used, or null. */
export function findRegistration(sql: SqlStorage, id: string): Registration | null {
  const [row] = sql
    .exec<{ id: string; hash: string; pool: string; expires_at: Millis }>(
      "SELECT * FROM registrations WHERE id = ?",
      id,
    )
    .toArray();
  return row === undefined ? null : { id: row.id, hash: row.hash, pool: row.pool, expiresAt: row.expires_at };
}

/** How many registration tokens wait to be used. */
export function countRegistrations(sql: SqlStorage): number {
  return sql.exec<{ count: number }>("SELECT count(*) AS count FROM registrations").one().count;
}

/** Stores a registration token. */
export function insertRegistration(sql: SqlStorage, { id, hash, pool, expiresAt }: Registration): void {
  sql.exec("INSERT INTO registrations (id, hash, pool, expires_at) VALUES (?, ?, ?, ?)", id, hash, pool, expiresAt);
}

/** Uses a registration token up. */
export function deleteRegistration(sql: SqlStorage, id: string): void {
  sql.exec("DELETE FROM registrations WHERE id = ?", id);
}

/** The sessions of a runner, by the hash of their bearer. */
export function readSessions(sql: SqlStorage, runner: RunnerId): { hash: string; expiresAt: Millis }[] {
  return sql
    .exec<{ hash: string; expires_at: Millis }>(
      "SELECT hash, expires_at FROM sessions WHERE runner = ? ORDER BY expires_at",
      runner,
    )
    .toArray()
    .map((row) => ({ hash: row.hash, expiresAt: row.expires_at }));
}

/** Stores a session. */
export function insertSession(sql: SqlStorage, session: { runner: RunnerId; hash: string; expiresAt: Millis }): void {
  sql.exec(
    "INSERT INTO sessions (runner, hash, expires_at) VALUES (?, ?, ?)",
    session.runner,
    session.hash,
    session.expiresAt,
  );
}

/** Ends one session of a runner. */
export function deleteSession(sql: SqlStorage, runner: RunnerId, hash: string): void {
  sql.exec("DELETE FROM sessions WHERE runner = ? AND hash = ?", runner, hash);
}

/** Ends every session of a runner. */
export function deleteSessions(sql: SqlStorage, runner: RunnerId): void {
  sql.exec("DELETE FROM sessions WHERE runner = ?", runner);
}
