import { join } from "node:path";

/**
 * Whom the node follows (`rad follow`), as did:key: the table `following` of `$RAD_HOME/node/policies.db` (radicle's
 * `node/policy/schema.sql`). Nobody where that cannot be read, which only means that more waits for an approval; Node before 22.13 has no SQLite.
 */
export async function readFollowed(radHome: string): Promise<ReadonlySet<string>> {
  try {
    const { DatabaseSync } = await import("node:sqlite");
    const database = new DatabaseSync(join(radHome, "node", "policies.db"), { readOnly: true });
    try {
      const rows = database.prepare("SELECT id FROM following WHERE policy = 'allow'").all();
      return new Set(rows.flatMap(({ id }) => (typeof id === "string" ? [`did:key:${id}`] : [])));
    } finally {
      database.close();
    }
  } catch {
    return new Set();
  }
}
