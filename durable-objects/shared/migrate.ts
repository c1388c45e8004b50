import { transact } from "./transact.ts";

/** One step of an object's schema. Lists are append-only: a changed or removed step is refused. */
export type Migration = { readonly id: string; readonly sql: string };

/**
 * Brings an object's schema up to the list. Runs synchronously in the constructor, in one transaction, so that a restart in
 * the middle leaves the old schema whole. Throws when the recorded steps are not a prefix of the list: then this code is older than the data,
 * or the past was edited, and running on would lose rows.
 *
 * @param upTo number of steps to apply, for tests that put old data in between.
 */
export function migrate(storage: DurableObjectStorage, list: readonly Migration[], upTo: number = list.length): void {
  const { sql } = storage;
  sql.exec(
    "CREATE TABLE IF NOT EXISTS schema_migrations (position INTEGER PRIMARY KEY, id TEXT NOT NULL, sql TEXT NOT NULL) STRICT",
  );
  const applied = sql
    .exec<{ id: string; sql: string }>("SELECT id, sql FROM schema_migrations ORDER BY position")
    .toArray();
  applied.forEach((step, position) => {
    const expected = list[position];
    if (expected === undefined || expected.id !== step.id || expected.sql !== step.sql)
      throw new Error(
        `schema step ${position} is "${step.id}" in storage but "${expected?.id ?? "nothing"}" in the code: migrations are append-only`,
      );
  });
  if (applied.length >= upTo) return;
  transact(storage, () => {
    list.slice(applied.length, upTo).forEach((step, offset) => {
      sql.exec(step.sql);
      sql.exec(
        "INSERT INTO schema_migrations (position, id, sql) VALUES (?, ?, ?)",
        applied.length + offset,
        step.id,
        step.sql,
      );
    });
  });
}

/** False for an object that has never been migrated: nothing was stored in it yet. */
export function hasTables(sql: SqlStorage): boolean {
  return sql.exec("SELECT 1 FROM sqlite_master WHERE name = 'schema_migrations'").toArray().length > 0;
}
