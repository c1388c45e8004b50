import type { Hook, TriggersBody, TrustPolicy } from "@plumule/protocol";
import { SHORT_SECRET, type StoredHook } from "../core/hooks.ts";

/** Rules and hooks; `version` is their ETag and 0 before the first were put. */
export type StoredTriggers = Omit<TriggersBody, "hooks"> & { version: number; hooks: readonly StoredHook[] };

/** The trust policy that was put, or null while the default one stands. */
export function readTrust(sql: SqlStorage): TrustPolicy | null {
  const body = readBody(sql, "trust");
  return body === null ? null : (JSON.parse(body) as TrustPolicy);
}

/** Replaces the trust policy. */
export function saveTrust(sql: SqlStorage, policy: TrustPolicy): void {
  saveBody(sql, "trust", policy.version, JSON.stringify(policy));
}

/** The rules and hooks that stand. */
export function readTriggers(sql: SqlStorage): StoredTriggers {
  const body = readBody(sql, "triggers");
  if (body === null) return { version: 0, triggers: [], hooks: [] };
  const stored = JSON.parse(body) as Omit<StoredTriggers, "hooks"> & { hooks: (Hook & Partial<StoredHook>)[] };
  return {
    ...stored,
    hooks: stored.hooks.map(({ secret, ...hook }) => ({
      ...hook,
      secrets: hook.secrets ?? (secret === undefined ? [] : [{ name: SHORT_SECRET, secret }]),
    })),
  };
}

/** Replaces rules and hooks. */
export function saveTriggers(sql: SqlStorage, triggers: StoredTriggers): void {
  saveBody(sql, "triggers", triggers.version, JSON.stringify(triggers));
}

/** The body of one setting as JSON text, or null before the first was put. */
export function readBody(sql: SqlStorage, name: string): string | null {
  const [row] = sql.exec<{ body: string }>("SELECT body FROM settings WHERE name = ?", name).toArray();
  return row?.body ?? null;
}

/** Replaces one setting. */
export function saveBody(sql: SqlStorage, name: string, version: number, body: string): void {
  sql.exec("INSERT OR REPLACE INTO settings (name, version, body) VALUES (?, ?, ?)", name, version, body);
}
