import { EVENT_LOG_MIGRATION } from "../shared/event-log.ts";
import type { Migration } from "../shared/migrate.ts";

/**
 * The tables of a namespace, and of the directory, which uses `namespaces` alone. Append-only.
 *
 * Rows written are the bill, and an index entry is a row: a job costs its row, one entry to list a deployment's jobs, and one to find a
 * commit's jobs when it has a commit. Lists by state walk the newest rows instead. Secrets are stored as SHA-256, but for those
 * of hooks: an HMAC cannot be checked with a hash.
 */
export const MIGRATIONS: readonly Migration[] = [
  EVENT_LOG_MIGRATION,
  {
    id: "namespace",
    sql: `
      CREATE TABLE namespace (id TEXT PRIMARY KEY, created_at INTEGER NOT NULL, sweep_at INTEGER) STRICT, WITHOUT ROWID;
      CREATE TABLE namespaces (id TEXT PRIMARY KEY, created_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
      CREATE TABLE tokens (
        id TEXT PRIMARY KEY, hash TEXT NOT NULL, name TEXT NOT NULL, scopes TEXT NOT NULL,
        created_at INTEGER NOT NULL, created_by TEXT NOT NULL, expires_at INTEGER
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE registrations (
        id TEXT PRIMARY KEY, hash TEXT NOT NULL, pool TEXT NOT NULL, expires_at INTEGER NOT NULL
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE runners (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, pool TEXT NOT NULL, drained INTEGER NOT NULL,
        registered_at INTEGER NOT NULL, revoked_at INTEGER
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE sessions (
        runner TEXT NOT NULL, hash TEXT NOT NULL, expires_at INTEGER NOT NULL, PRIMARY KEY (runner, hash)
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE settings (name TEXT PRIMARY KEY, version INTEGER NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
      CREATE TABLE deliveries (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, hook TEXT NOT NULL, signer TEXT NOT NULL,
        webhook_id TEXT NOT NULL, body_sha256 TEXT NOT NULL, received_at INTEGER NOT NULL, type TEXT NOT NULL,
        push TEXT, push_key TEXT, state TEXT NOT NULL, round INTEGER NOT NULL, results TEXT NOT NULL
      ) STRICT;
      CREATE INDEX deliveries_by_push ON deliveries (push_key) WHERE push_key IS NOT NULL;
      CREATE TABLE deployments (
        id TEXT PRIMARY KEY, state TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
        through INTEGER NOT NULL, removed INTEGER NOT NULL, view TEXT NOT NULL
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE jobs (
        id TEXT PRIMARY KEY, deployment TEXT NOT NULL, commit_id TEXT, state TEXT NOT NULL, view TEXT NOT NULL
      ) STRICT, WITHOUT ROWID;
      CREATE INDEX jobs_by_deployment ON jobs (deployment, id);
      CREATE INDEX jobs_by_commit ON jobs (commit_id, id) WHERE commit_id IS NOT NULL;
      CREATE TABLE outbox (
        number INTEGER PRIMARY KEY, kind TEXT NOT NULL, payload TEXT NOT NULL, attempts INTEGER NOT NULL, due_at INTEGER NOT NULL
      ) STRICT;
    `,
  },
  {
    id: "logins",
    sql: `
      ALTER TABLE tokens ADD COLUMN role TEXT;
      ALTER TABLE tokens ADD COLUMN deployments TEXT;
      CREATE TABLE logins (
        member TEXT NOT NULL, hash TEXT NOT NULL, expires_at INTEGER NOT NULL, PRIMARY KEY (member, hash)
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE watching (
        actor TEXT NOT NULL, deployment TEXT NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (actor, deployment)
      ) STRICT, WITHOUT ROWID;
    `,
  },
  {
    id: "secrets",
    sql: `
      CREATE TABLE secrets (
        name TEXT PRIMARY KEY, box TEXT NOT NULL, runners TEXT NOT NULL, condition TEXT NOT NULL,
        stored_at INTEGER NOT NULL, stored_by TEXT NOT NULL
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE recipients (runner TEXT PRIMARY KEY, envelope TEXT NOT NULL) STRICT, WITHOUT ROWID;
    `,
  },
  {
    // A push is placed among all of its ref, no longer only compared with copies of itself; what one deployment is to get stays in order; and
    // a delivery may ask for an answer about its jobs.
    id: "delivery-order-and-status",
    sql: `
      DROP INDEX deliveries_by_push;
      ALTER TABLE deliveries RENAME COLUMN push_key TO ref_key;
      UPDATE deliveries SET ref_key = json_extract(push, '$.repository') || ' ' || json_extract(push, '$.ref');
      CREATE INDEX deliveries_by_ref ON deliveries (ref_key, number) WHERE ref_key IS NOT NULL;
      ALTER TABLE deliveries ADD COLUMN status TEXT;
      ALTER TABLE outbox ADD COLUMN lane TEXT;
      CREATE INDEX outbox_by_lane ON outbox (lane, number) WHERE lane IS NOT NULL;
      CREATE TABLE status_jobs (
        job TEXT NOT NULL, delivery TEXT NOT NULL, PRIMARY KEY (job, delivery)
      ) STRICT, WITHOUT ROWID;
    `,
  },
  {
    id: "audit",
    sql: `
      CREATE TABLE audit (sequence INTEGER PRIMARY KEY, at INTEGER NOT NULL, entry TEXT NOT NULL) STRICT;
      CREATE TABLE audit_heads (sequence INTEGER PRIMARY KEY, envelope TEXT NOT NULL) STRICT;
    `,
  },
  {
    id: "drain-orders",
    sql: "ALTER TABLE runners ADD COLUMN drain_order TEXT",
  },
  {
    // Read as a whole, so without an index.
    id: "locks",
    sql: `
      CREATE TABLE lock_requests (
        position INTEGER PRIMARY KEY, deployment TEXT NOT NULL, job TEXT NOT NULL, number INTEGER NOT NULL, locks TEXT NOT NULL,
        asked_at INTEGER NOT NULL, held_at INTEGER, checked_at INTEGER NOT NULL
      ) STRICT;
    `,
  },
];
