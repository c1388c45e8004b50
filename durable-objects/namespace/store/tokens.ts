import { formatTime, formatTimeOrNull, type Millis, type Role, type Scope, type TokenView } from "@plumule/protocol";

/** A token as stored: everything but its secret. */
export type Token = {
  id: string;
  hash: string;
  name: string;
  scopes: readonly Scope[];
  role: Role | null;
  deployments: readonly string[] | null;
  createdAt: Millis;
  createdBy: string;
  expiresAt: Millis | null;
};

type Row = {
  id: string;
  hash: string;
  name: string;
  scopes: string;
  role: string | null;
  deployments: string | null;
  created_at: Millis;
  created_by: string;
  expires_at: Millis | null;
};

/** Reads one token, or null. */
export function findToken(sql: SqlStorage, id: string): Token | null {
  const [row] = sql.exec<Row>("SELECT * FROM tokens WHERE id = ?", id).toArray();
  return row === undefined ? null : tokenOf(row);
}

/** All tokens, oldest first; there are at most `LIMITS.tokens`. */
export function readTokens(sql: SqlStorage): Token[] {
  return sql.exec<Row>("SELECT * FROM tokens ORDER BY created_at, id").toArray().map(tokenOf);
}

/** How many tokens there are. */
export function countTokens(sql: SqlStorage): number {
  return sql.exec<{ count: number }>("SELECT count(*) AS count FROM tokens").one().count;
}

/** Stores a new token. */
export function insertToken(sql: SqlStorage, token: Token): void {
  sql.exec(
    "INSERT INTO tokens (id, hash, name, scopes, role, deployments, created_at, created_by, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    token.id,
    token.hash,
    token.name,
    JSON.stringify(token.scopes),
    token.role,
    token.deployments === null ? null : JSON.stringify(token.deployments),
    token.createdAt,
    token.createdBy,
    token.expiresAt,
  );
}

/** Removes a token: with its row its right is gone. */
export function deleteToken(sql: SqlStorage, id: string): void {
  sql.exec("DELETE FROM tokens WHERE id = ?", id);
}

/** A token as people see it. */
export function tokenView({ id, name, scopes, role, deployments, createdAt, createdBy, expiresAt }: Token): TokenView {
  return {
    id,
    name,
    scopes: [...scopes],
    ...(role === null ? {} : { role }),
    ...(deployments === null ? {} : { deployments: [...deployments] }),
    createdAt: formatTime(createdAt),
    expiresAt: formatTimeOrNull(expiresAt),
    createdBy,
  };
}

function tokenOf(row: Row): Token {
  return {
    id: row.id,
    hash: row.hash,
    name: row.name,
    scopes: JSON.parse(row.scopes) as Scope[],
    role: row.role as Role | null,
    deployments: row.deployments === null ? null : (JSON.parse(row.deployments) as string[]),
    createdAt: row.created_at,
    createdBy: row.created_by,
    expiresAt: row.expires_at,
  };
}
