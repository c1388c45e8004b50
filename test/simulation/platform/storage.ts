import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import { currentContext } from "./clock.ts";
import type { World } from "./world.ts";

type Row = Record<string, unknown>;
/** `begins`: it changes something only the first time, so that it belongs to a commit but needs none. */
type Prepared = { statement: StatementSync | null; isQuery: boolean; effect: "reads" | "begins" | "writes" };

/** Time of a commit, ms: to the disk and, on the platform, to its copies. */
const COMMIT_MS = 3;
const SLOW_COMMIT_MS = 1_500;

/**
 * The storage of one object: a real SQLite database in memory that outlives the instances. What is written becomes durable with a commit a moment
 * later; whoever evicts the object before that takes it back. So nothing may leave the object earlier: see `whenDurable`.
 */
export class ObjectStorage {
  readonly database = new DatabaseSync(":memory:");
  readonly sql: { exec: (query: string, ...bindings: unknown[]) => Cursor };
  readonly #world: World;
  readonly #name: string;
  readonly #prepared = new Map<string, Prepared>();
  /** What is set, and what is set durably. */
  #alarm: number | null = null;
  #durableAlarm: number | null = null;
  /** The alarm whose handler runs: it stays set, unseen, until the handler is done, so that a crash fires it again. */
  #firing: number | null = null;
  #isOpen = false;
  #isDirty = false;
  #isKnown = false;
  #nesting = 0;
  #waiting: (() => void)[] = [];
  #generation = 0;
  readonly #events: { committed: () => void; lost: (why: string) => void };

  /** `committed` after each commit; `lost` when one failed, so that the object has to go. */
  constructor(world: World, name: string, events: { committed: () => void; lost: (why: string) => void }) {
    this.#world = world;
    this.#name = name;
    this.#events = events;
    this.sql = { exec: (query, ...bindings) => this.#exec(query, bindings) };
    // The epoch of a stream's history is drawn in SQL.
    this.database.function("random", () => world.entropy.between(0, 2 ** 31));
  }

  get durableAlarm(): number | null {
    return this.#durableAlarm;
  }

  get alarm(): number | null {
    return this.#alarm;
  }

  /** True once something was stored. */
  get isKnown(): boolean {
    return this.#isKnown;
  }

  /** True while something is written that a crash would take back. */
  get isDirty(): boolean {
    return this.#isDirty;
  }

  transactionSync<T>(change: () => T): T {
    this.#begin();
    const [name, alarm] = [`s${(this.#nesting += 1)}`, this.#alarm];
    this.database.exec(`SAVEPOINT ${name}`);
    try {
      const result = change();
      this.database.exec(`RELEASE ${name}`);
      return result;
    } catch (error) {
      this.database.exec(`ROLLBACK TO ${name}; RELEASE ${name}`);
      this.#alarm = alarm;
      throw error;
    } finally {
      this.#nesting -= 1;
    }
  }

  async getAlarm(): Promise<number | null> {
    return this.#alarm;
  }

  async setAlarm(at: number): Promise<void> {
    this.#changed();
    this.#alarm = at;
  }

  async deleteAlarm(): Promise<void> {
    this.#changed();
    this.#alarm = null;
  }

  /** The handler begins: what it reads is that no alarm is set. */
  beginAlarm(): void {
    this.#firing = this.#durableAlarm;
    if (this.#alarm === this.#firing) this.#alarm = null;
  }

  /** The handler is done, or will never be run again: the alarm is gone, unless another one was set. */
  endAlarm(): void {
    if (this.#alarm === null && this.#durableAlarm === this.#firing) this.#durableAlarm = null;
    this.#firing = null;
  }

  /** The output gate: what leaves an object waits for what was written before it. Whatever waits when the object is evicted never leaves. */
  leave(send: () => void): void {
    if (this.#world.bug === "answers before the commit") send();
    else this.whenDurable(send);
  }

  /** Once everything that was written is durable. */
  whenDurable(then: () => void): void {
    if (this.#isDirty) this.#waiting.push(then);
    else then();
  }

  /** The object is evicted: back to the last commit. */
  rollBack(): void {
    this.#generation += 1;
    this.#waiting = [];
    if (this.#isOpen) this.database.exec("ROLLBACK");
    this.#isOpen = false;
    this.#isDirty = false;
    this.#nesting = 0;
    this.#firing = null;
    this.#alarm = this.#durableAlarm;
  }

  #begin(): void {
    if (this.#isOpen) return;
    this.database.exec("BEGIN");
    this.#isOpen = true;
  }

  #changed(): void {
    this.#begin();
    if (this.#isDirty) return;
    this.#isDirty = true;
    const generation = this.#generation;
    const commitMs =
      this.#world.timing.next() * (this.#world.faults.strikes("slow commit") ? SLOW_COMMIT_MS : COMMIT_MS);
    this.#world.clock.after(commitMs, () => {
      if (generation === this.#generation) this.#commit();
    });
  }

  #commit(): void {
    if (this.#world.faults.strikes("commit error")) return this.#events.lost("a commit failed");
    this.database.exec("COMMIT");
    this.#isOpen = false;
    this.#isDirty = false;
    this.#isKnown = true;
    this.#durableAlarm = this.#alarm ?? this.#firing;
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#events.committed();
    for (const leave of waiting) leave();
  }

  #exec(query: string, bindings: unknown[]): Cursor {
    const { statement, isQuery, effect } = this.#prepare(query, bindings);
    if (effect !== "reads") this.#begin();
    if (effect === "writes") {
      // An alarm that is overdue may be set anew by whoever wakes the object.
      if (currentContext()?.stranger === true)
        this.#world.violate("I15", `a caller without a credential changed what ${this.#name} stores: ${query}`);
      this.#changed();
      if (this.#world.faults.strikes("storage error")) throw new Error("database or disk is full: SQLITE_FULL");
    }
    if (statement === null) {
      this.database.exec(query);
      return new Cursor([]);
    }
    const values = bindings.map(bound);
    if (isQuery) return new Cursor(statement.all(...values).map(found));
    statement.run(...values);
    return new Cursor([]);
  }

  /** Scripts of several statements run once in the life of an object; everything else is prepared once. */
  #prepare(query: string, bindings: unknown[]): Prepared {
    const known = this.#prepared.get(query);
    if (known !== undefined) return known;
    if (bindings.length === 0 && /;\s*\S/.test(query)) return { statement: null, isQuery: false, effect: "writes" };
    const statement = this.database.prepare(query);
    const prepared: Prepared = { statement, isQuery: statement.columns().length > 0, effect: effectOf(query) };
    this.#prepared.set(query, prepared);
    return prepared;
  }
}

function effectOf(query: string): Prepared["effect"] {
  if (/^\s*CREATE TABLE IF NOT EXISTS/i.test(query)) return "begins";
  return /^\s*(?:INSERT|UPDATE|DELETE|CREATE|DROP|ALTER)/i.test(query) ? "writes" : "reads";
}

/** The rows of one query. They are read at once: what a cursor would see after an `await` is nothing to rely on. */
export class Cursor {
  readonly #rows: Row[];

  constructor(rows: Row[]) {
    this.#rows = rows;
  }

  toArray(): Row[] {
    return this.#rows;
  }

  one(): Row {
    const [row] = this.#rows;
    if (row === undefined || this.#rows.length > 1) throw new Error(`expected one row, found ${this.#rows.length}`);
    return row;
  }

  [Symbol.iterator](): Iterator<Row> {
    return this.#rows[Symbol.iterator]();
  }
}

/** A value as the platform binds it. */
function bound(value: unknown): SQLInputValue {
  if (value === undefined) return null;
  if (typeof value === "boolean") return String(value);
  if (typeof value === "bigint") throw new TypeError("a BigInt cannot be bound");
  return value instanceof ArrayBuffer ? new Uint8Array(value) : (value as SQLInputValue);
}

/** A row as the platform gives it: bytes are an ArrayBuffer. */
function found(row: Row): Row {
  for (const [name, value] of Object.entries(row))
    if (value instanceof Uint8Array) row[name] = new Uint8Array(value).buffer;
  return row;
}
