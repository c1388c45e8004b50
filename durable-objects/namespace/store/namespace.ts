import type { Millis, NamespaceId } from "@plumule/protocol";

/** The namespace that this object is, or null before it was opened and in the directory. */
export function findNamespace(sql: SqlStorage): { id: NamespaceId; createdAt: Millis } | null {
  const [row] = sql.exec<{ id: string; created_at: Millis }>("SELECT id, created_at FROM namespace").toArray();
  return row === undefined ? null : { id: row.id, createdAt: row.created_at };
}

/** Makes this object a namespace. */
export function insertNamespace(sql: SqlStorage, { id, createdAt }: { id: NamespaceId; createdAt: Millis }): void {
  sql.exec("INSERT INTO namespace (id, created_at, sweep_at) VALUES (?, ?, NULL)", id, createdAt);
}
