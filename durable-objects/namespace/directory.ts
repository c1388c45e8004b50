import { formatTime, type NamespaceView, type Refusal } from "@plumule/protocol";
import type { Page } from "./calls.ts";
import { formatPosition, parsePosition } from "./core/positions.ts";

/** Adds a namespace to the installation's list; `created` is false when it is there already. */
export function addNamespace(sql: SqlStorage, namespace: NamespaceView): boolean {
  const added = sql.exec(
    "INSERT INTO namespaces (id, created_at) VALUES (?, ?) ON CONFLICT (id) DO NOTHING RETURNING id",
    namespace.id,
    Date.parse(namespace.createdAt),
  );
  return added.toArray().length > 0;
}

/** The namespaces of the installation, by id. */
export function listNamespaces(
  sql: SqlStorage,
  { cursor, limit }: { cursor: string | null; limit: number },
): Page<NamespaceView> | Refusal {
  const position = parsePosition("namespaces", cursor);
  if ("refused" in position) return position;
  const found = sql
    .exec<{ id: string; created_at: number }>(
      "SELECT id, created_at FROM namespaces WHERE id > ? ORDER BY id LIMIT ?",
      position.key ?? "",
      limit + 1,
    )
    .toArray()
    .map((row) => ({ id: row.id, createdAt: formatTime(row.created_at) }));
  const items = found.slice(0, limit);
  const last = found.length > limit ? items.at(-1) : undefined;
  return { items, nextCursor: last === undefined ? null : formatPosition("namespaces", last.id) };
}
