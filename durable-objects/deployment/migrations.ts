import { EVENT_LOG_MIGRATION } from "../shared/event-log.ts";
import type { Migration } from "../shared/migrate.ts";

/**
 * The schema of a Deployment, append-only. No table has a second index, because each index is one more row written per change: a job is found
 * by its time, which is in its id and unique in its lane; a run's log, derivations and result by its epoch.
 */
export const MIGRATIONS: readonly Migration[] = [
  EVENT_LOG_MIGRATION,
  {
    id: "jobs",
    sql: `
      CREATE TABLE lane (id INTEGER PRIMARY KEY CHECK (id = 0), record TEXT NOT NULL) STRICT;
      CREATE TABLE jobs (created_at INTEGER PRIMARY KEY, id TEXT NOT NULL, final INTEGER NOT NULL, record TEXT NOT NULL, spec TEXT NOT NULL) STRICT;
      CREATE TABLE results (epoch INTEGER PRIMARY KEY, body_sha256 TEXT NOT NULL, late INTEGER NOT NULL, answer TEXT NOT NULL, outputs TEXT NOT NULL, statements TEXT NOT NULL) STRICT;
      CREATE TABLE requests (key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, answer TEXT NOT NULL, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    `,
  },
  {
    id: "run-bytes",
    sql: `
      CREATE TABLE log_chunks (position INTEGER PRIMARY KEY, at INTEGER NOT NULL, bytes BLOB NOT NULL) STRICT;
      CREATE TABLE derivation_batches (position INTEGER PRIMARY KEY, changes TEXT NOT NULL) STRICT;
    `,
  },
  {
    id: "verdicts",
    sql: `
      CREATE TABLE verdicts (created_at INTEGER PRIMARY KEY, verdict TEXT NOT NULL, summary TEXT NOT NULL, equivocations TEXT NOT NULL) STRICT;
    `,
  },
  {
    id: "packed-logs",
    sql: `
      ALTER TABLE log_chunks ADD COLUMN unpacked_bytes INTEGER;
    `,
  },
];
