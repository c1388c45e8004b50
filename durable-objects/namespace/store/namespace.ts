import type { Millis, NamespaceId } from "@plumule/protocol";

/** True once the object's tables were made. Asking makes none. */
export function hasTables(sql: SqlStorage): boolean {
  return sql.exec("SELECT 1 FROM sqlite_master WHERE name = 'schema_migrations'").toArray().length > 0;
}

/** The namespace that this object is, or null before it was opened and in the directory. */
export function findNamespace(sql: SqlStorage): { id: NamespaceId; createdAt: Millis } | null {
  const [row] = sql.exec<{ id: string; created_at: Millis }>("SELECT id, created_at FROM namespace").toArray();
  return row === undefined ? null : { id: row.id, createdAt: row.created_at };
}

/** Makes this object a namespace. */
export function insertNamespace(sql: SqlStorage, { id, createdAt }: { id: NamespaceId; createdAt: Millis }): void {
  sql.exec("INSERT INTO namespace (id, created_at, sweep_at) VALUES (?, ?, NULL)", id, createdAt);
}
