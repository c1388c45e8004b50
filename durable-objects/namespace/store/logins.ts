import type { MembersBody, MembersView, Millis } from "@plumule/protocol";
import { readBody, saveBody } from "./settings.ts";

/** Who may log in; nobody before somebody was named. */
export function readMembers(sql: SqlStorage): MembersView {
  const body = readBody(sql, "members");
  return body === null ? { version: 0, members: [] } : (JSON.parse(body) as MembersView);
}

/** Replaces who may log in. */
export function saveMembers(sql: SqlStorage, version: number, { members }: MembersBody): void {
  saveBody(sql, "members", version, JSON.stringify({ version, members }));
}

/** The logins of a key, by the hash of their bearer, the first to end first. */
export function readLogins(sql: SqlStorage, member: string): { hash: string; expiresAt: Millis }[] {
  return sql
    .exec<{ hash: string; expires_at: Millis }>(
      "SELECT hash, expires_at FROM logins WHERE member = ? ORDER BY expires_at",
      member,
    )
    .toArray()
    .map((row) => ({ hash: row.hash, expiresAt: row.expires_at }));
}

/** Stores a login. */
export function insertLogin(sql: SqlStorage, login: { member: string; hash: string; expiresAt: Millis }): void {
  sql.exec("INSERT INTO logins (member, hash, expires_at) VALUES (?, ?, ?)", login.member, login.hash, login.expiresAt);
}

/** Ends one login. False when there is none. */
export function deleteLogin(sql: SqlStorage, member: string, hash: string): boolean {
  return sql.exec("DELETE FROM logins WHERE member = ? AND hash = ? RETURNING hash", member, hash).toArray().length > 0;
}

/** Ends every login of a key. */
export function deleteLogins(sql: SqlStorage, member: string): void {
  sql.exec("DELETE FROM logins WHERE member = ?", member);
}
