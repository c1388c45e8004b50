import { AsyncLocalStorage } from "node:async_hooks";
import type { DurableObject } from "cloudflare:workers";
import type { Env } from "../../durable-objects/env.ts";
import broker, * as classes from "../../src/worker.ts";
import type { Tally } from "./tally.ts";

/**
 * The broker as it is, with every request to it and every row that it writes counted from outside: methods are wrapped, statements are read
 * at the storage. `GET /tally` answers the {@link Tally}s since the last call, and starts anew.
 */

type Statement = { tally: Tally; table: string; cursor: SqlStorageCursor<Record<string, SqlStorageValue>> };
type ObjectClass = new (ctx: DurableObjectState, env: Env) => DurableObject<Env>;
type Method = (this: unknown, ...parameters: unknown[]) => unknown;

const steps = new AsyncLocalStorage<Tally>();
let tallies = new Map<string, Tally>();
let statements: Statement[] = [];

function tallyOf(object: string, step: string): Tally {
  const key = `${object} ${step}`;
  const known = tallies.get(key) ?? { object, step, requestCount: 0, rowsRead: 0, rowsWritten: {}, activeMs: 0 };
  tallies.set(key, known);
  return known;
}

/** A cursor knows its rows when it has been read to the end, so they are added up as late as possible. */
function takeTallies(): Tally[] {
  for (const { tally, table, cursor } of statements) {
    tally.rowsRead += cursor.rowsRead;
    addRows(tally, table, cursor.rowsWritten);
  }
  const taken = [...tallies.values()];
  tallies = new Map();
  statements = [];
  return taken;
}

function addRows(tally: Tally, table: string, count: number): void {
  if (count > 0) tally.rowsWritten[table] = (tally.rowsWritten[table] ?? 0) + count;
}

function tableOf(query: string): string {
  return /^\s*(?:INSERT(?: OR \w+)? INTO|UPDATE|DELETE FROM)\s+(\w+)/i.exec(query)?.[1] ?? "schema";
}

function watchStorage(object: string, { storage }: DurableObjectState): void {
  const current = (): Tally => steps.getStore() ?? tallyOf(object, "open");
  const { sql } = storage;
  const exec = sql.exec.bind(sql);
  const setAlarm = storage.setAlarm.bind(storage);
  const counted = (query: string, ...bindings: unknown[]): Statement["cursor"] => {
    const cursor = exec(query, ...bindings);
    statements.push({ tally: current(), table: tableOf(query), cursor });
    return cursor;
  };
  Object.defineProperty(sql, "exec", { value: counted });
  Object.defineProperty(storage, "sql", { value: sql });
  Object.defineProperty(storage, "setAlarm", {
    value: (at: number): Promise<void> => {
      addRows(current(), "alarm", 1);
      return setAlarm(at);
    },
  });
}

/** Adds the time until a promise settles to its step. */
async function timed<T>(tally: Tally, work: Promise<T>): Promise<T> {
  const from = Date.now();
  try {
    return await work;
  } finally {
    tally.activeMs += Date.now() - from;
  }
}

function watchBackground(object: string, ctx: DurableObjectState): void {
  const waitUntil = ctx.waitUntil.bind(ctx);
  Object.defineProperty(ctx, "waitUntil", {
    value: (work: Promise<unknown>): void => waitUntil(timed(steps.getStore() ?? tallyOf(object, "open"), work)),
  });
}

function counted(object: string, base: ObjectClass): ObjectClass {
  const Counted = class extends base {
    constructor(ctx: DurableObjectState, env: Env) {
      watchStorage(object, ctx);
      watchBackground(object, ctx);
      super(ctx, env);
    }
  };
  for (const step of Object.getOwnPropertyNames(base.prototype)) {
    const method: unknown = Reflect.get(base.prototype, step);
    if (step === "constructor" || typeof method !== "function") continue;
    Object.defineProperty(Counted.prototype, step, { value: countedMethod(object, step, method as Method) });
  }
  return Counted;
}

function countedMethod(object: string, step: string, method: Method): Method {
  return function (...parameters) {
    const tally = tallyOf(object, step);
    tally.requestCount += 1;
    return steps.run(tally, () => timed(tally, Promise.resolve(method.apply(this, parameters))));
  };
}

export const Deployment = counted("Deployment", classes.Deployment);
export const Pool = counted("Pool", classes.Pool);
export const Namespace = counted("Namespace", classes.Namespace);

export default {
  fetch(request, env, ctx) {
    const { pathname } = new URL(request.url);
    if (pathname === "/tally") return Response.json(takeTallies());
    tallyOf("edge", pathname.slice(pathname.lastIndexOf("/") + 1)).requestCount += 1;
    return broker.fetch(request, env, ctx);
  },
} satisfies ExportedHandler<Env>;
