import { readBody, saveBody } from "./settings.ts";

/** The panel that is asked, with the secret that questions are signed with; `version` is its ETag. */
export type StoredAuthorizer = { version: number; authorizer: { url: string; secret: string } | null };

/** The authorizer that stands. */
export function readAuthorizer(sql: SqlStorage): StoredAuthorizer {
  const body = readBody(sql, "authorizer");
  return body === null ? { version: 0, authorizer: null } : (JSON.parse(body) as StoredAuthorizer);
}

/** Replaces it. */
export function saveAuthorizer(sql: SqlStorage, stored: StoredAuthorizer): void {
  saveBody(sql, "authorizer", stored.version, JSON.stringify(stored));
}
