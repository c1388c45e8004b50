import type { DeploymentId, Millis } from "@plumule/protocol";

/** Remembers that a caller may have sockets at a deployment, until they have to be admitted anew. */
export function noteWatching(sql: SqlStorage, actor: string, deployment: DeploymentId, until: Millis): void {
  sql.exec("INSERT OR REPLACE INTO watching (actor, deployment, until) VALUES (?, ?, ?)", actor, deployment, until);
}

/** Takes out where a caller may have sockets. */
export function takeWatching(sql: SqlStorage, actor: string): DeploymentId[] {
  return sql
    .exec<{ deployment: string }>("DELETE FROM watching WHERE actor = ? RETURNING deployment", actor)
    .toArray()
    .map(({ deployment }) => deployment);
}
