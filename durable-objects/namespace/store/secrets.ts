import type { Millis, RunnerId, SecretBody, WireEnvelope } from "@plumule/protocol";

/** A stored secret: a box that nobody here can open, and what people may know of it. */
export type StoredSecret = SecretBody & { name: string; storedAt: Millis; storedBy: string };

type SecretRow = {
  name: string;
  box: string;
  runners: string;
  condition: string;
  stored_at: Millis;
  stored_by: string;
};

/** Every secret, by name. */
export function readSecrets(sql: SqlStorage): StoredSecret[] {
  return sql.exec<SecretRow>("SELECT * FROM secrets ORDER BY name").toArray().map(secretOf);
}

/** Reads one secret, or null. */
export function findSecret(sql: SqlStorage, name: string): StoredSecret | null {
  const [row] = sql.exec<SecretRow>("SELECT * FROM secrets WHERE name = ?", name).toArray();
  return row === undefined ? null : secretOf(row);
}

/** How many secrets there are. */
export function countSecrets(sql: SqlStorage): number {
  return sql.exec<{ count: number }>("SELECT count(*) AS count FROM secrets").one().count;
}

/** Stores a secret over the one of the same name. */
export function saveSecret(sql: SqlStorage, secret: StoredSecret): void {
  sql.exec(
    "INSERT OR REPLACE INTO secrets (name, box, runners, condition, stored_at, stored_by) VALUES (?, ?, ?, ?, ?, ?)",
    secret.name,
    secret.box,
    JSON.stringify(secret.runners),
    JSON.stringify(secret.condition),
    secret.storedAt,
    secret.storedBy,
  );
}

/** Forgets a secret. */
export function deleteSecret(sql: SqlStorage, name: string): void {
  sql.exec("DELETE FROM secrets WHERE name = ?", name);
}

/** The signed recipient of a runner, or null. */
export function findRecipient(sql: SqlStorage, runner: RunnerId): WireEnvelope | null {
  const [row] = sql.exec<{ envelope: string }>("SELECT envelope FROM recipients WHERE runner = ?", runner).toArray();
  return row === undefined ? null : (JSON.parse(row.envelope) as WireEnvelope);
}

/** Stores the signed recipient of a runner over its older one. */
export function saveRecipient(sql: SqlStorage, runner: RunnerId, envelope: WireEnvelope): void {
  sql.exec("INSERT OR REPLACE INTO recipients (runner, envelope) VALUES (?, ?)", runner, JSON.stringify(envelope));
}

function secretOf(row: SecretRow): StoredSecret {
  return {
    name: row.name,
    box: row.box,
    runners: JSON.parse(row.runners) as StoredSecret["runners"],
    condition: JSON.parse(row.condition) as StoredSecret["condition"],
    storedAt: row.stored_at,
    storedBy: row.stored_by,
  };
}
