import type { Migration } from "../shared/migrate.ts";

/**
 * The schema of a pool, append-only. Both tables are without rowid: a key then costs no second row, and a job in the backlog costs
 * two rows in all, its ticket written and removed.
 */
export const MIGRATIONS: readonly Migration[] = [
  {
    id: "tickets and runners",
    sql: `
      CREATE TABLE tickets (
        job TEXT PRIMARY KEY,
        deployment TEXT NOT NULL,
        number INTEGER NOT NULL,
        priority TEXT NOT NULL,
        needs TEXT NOT NULL,
        queued_at INTEGER NOT NULL,
        avoid TEXT NOT NULL,
        told TEXT
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE runners (
        runner TEXT PRIMARY KEY,
        offer TEXT,
        drained INTEGER NOT NULL,
        seen_at INTEGER NOT NULL
      ) STRICT, WITHOUT ROWID;
    `,
  },
  {
    id: "drain-orders",
    sql: "ALTER TABLE runners ADD COLUMN drain_order TEXT",
  },
];
