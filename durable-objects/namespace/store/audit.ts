import { LIMITS, type Millis, type WireEnvelope } from "@plumule/protocol";

/** A stored row: its number, and the text that was hashed, kept as it is. */
export type AuditRow = { sequence: number; entry: string };

/** The newest row, or null. */
export function lastAuditRow(sql: SqlStorage): AuditRow | null {
  const [row] = sql.exec<AuditRow>("SELECT sequence, entry FROM audit ORDER BY sequence DESC LIMIT 1").toArray();
  return row ?? null;
}

/** Adds a row behind the newest. */
export function insertAuditRow(sql: SqlStorage, { sequence, entry }: AuditRow, at: Millis): void {
  sql.exec("INSERT INTO audit (sequence, at, entry) VALUES (?, ?, ?)", sequence, at, entry);
}

/** Rows after a number, oldest first. */
export function readAuditRows(sql: SqlStorage, after: number, limit: number): AuditRow[] {
  return sql
    .exec<AuditRow>("SELECT sequence, entry FROM audit WHERE sequence > ? ORDER BY sequence LIMIT ?", after, limit)
    .toArray();
}

/** Whether one of the newest rows holds a text; what is told twice is told close together. */
export function wasAudited(sql: SqlStorage, text: string): boolean {
  const newest = sql.exec<{ entry: string }>("SELECT entry FROM audit ORDER BY sequence DESC LIMIT 200").toArray();
  return newest.some(({ entry }) => entry.includes(text));
}

/** A signed head by the number of the row that it is about. */
export type StoredHead = { sequence: number; envelope: WireEnvelope };

/** Keeps a signed head. Of two over the same row the first stays. */
export function insertAuditHead(sql: SqlStorage, { sequence, envelope }: StoredHead): void {
  sql.exec("INSERT OR IGNORE INTO audit_heads (sequence, envelope) VALUES (?, ?)", sequence, JSON.stringify(envelope));
}

/** Heads over the rows of a range, both ends included. */
export function readAuditHeads(sql: SqlStorage, from: number, to: number): StoredHead[] {
  return sql
    .exec<{ sequence: number; envelope: string }>(
      "SELECT sequence, envelope FROM audit_heads WHERE sequence BETWEEN ? AND ? ORDER BY sequence",
      from,
      to,
    )
    .toArray()
    .map(({ sequence, envelope }) => ({ sequence, envelope: JSON.parse(envelope) as WireEnvelope }));
}

/** When the newest row has to be signed, or null when it is. Three look-ups, because every commit asks. */
export function auditDueAt(sql: SqlStorage): Millis | null {
  const { last, signed } = sql
    .exec<{
      last: number | null;
      signed: number | null;
    }>("SELECT (SELECT max(sequence) FROM audit) AS last, (SELECT max(sequence) FROM audit_heads) AS signed")
    .one();
  if (last === null || last === signed) return null;
  const [first] = sql
    .exec<{ at: Millis }>("SELECT at FROM audit WHERE sequence > ? ORDER BY sequence LIMIT 1", signed ?? 0)
    .toArray();
  const at = first?.at ?? 0;
  return last - (signed ?? 0) >= LIMITS.auditSignRows ? at : at + LIMITS.auditSignMs;
}

/** Lets go of rows beyond the limit, up to the last head before it: with that head the rest still verifies. At most `limit` at a time; answers how many. */
export function pruneAudit(sql: SqlStorage, limit: number): number {
  const { through } = sql
    .exec<{
      through: number | null;
    }>(
      "SELECT max(sequence) AS through FROM audit_heads WHERE sequence <= (SELECT max(sequence) FROM audit) - ?",
      LIMITS.auditKept,
    )
    .one();
  if (through === null) return 0;
  sql.exec("DELETE FROM audit_heads WHERE sequence < ?", through);
  return sql
    .exec(
      "DELETE FROM audit WHERE sequence IN (SELECT sequence FROM audit WHERE sequence <= ? ORDER BY sequence LIMIT ?) RETURNING 1",
      through,
      limit,
    )
    .toArray().length;
}
