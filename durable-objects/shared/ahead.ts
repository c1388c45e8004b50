import { hasTables, type Migration } from "./migrate.ts";

/** Name of the error with which every call of an object ends whose storage a newer version has written. It crosses from object to edge. */
export const STORAGE_AHEAD = "StorageAhead";

/** How long an object that was refused its storage rests before it looks again, ms: until somebody has deployed the newer version again. */
const REST_MS = 60_000;

/**
 * Call it first in a constructor; when true, the constructor has to end there. A newer version of the code has written this storage (the deploy
 * was rolled back), and this version would lose what it does not know. Every call then fails, and nothing is read or changed.
 *
 * The platform gives up an alarm that failed some times, and with it every deadline of the object. So one is set anew before the
 * failure, and is on the disk when it comes.
 */
export function isStorageAhead(ctx: DurableObjectState, list: readonly Migration[]): boolean {
  const { storage } = ctx;
  const { sql } = storage;
  if (!hasTables(sql)) return false;
  const ahead = sql
    .exec<{ id: string }>("SELECT id FROM schema_migrations WHERE position >= ? ORDER BY position", list.length)
    .toArray();
  if (ahead.length === 0) return false;
  const fault = new Error(`a newer version has written this storage: ${ahead.map(({ id }) => id).join(", ")}`);
  fault.name = STORAGE_AHEAD;
  void ctx.blockConcurrencyWhile(async () => {
    const alarmAt = await storage.getAlarm();
    if (alarmAt === null || alarmAt < Date.now()) await storage.setAlarm(Date.now() + REST_MS);
    await storage.sync();
    throw fault;
  });
  return true;
}
