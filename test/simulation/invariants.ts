import { type Event, isFinalJobState, type JobId } from "@plumule/protocol";
import type { Job, Lane } from "#durable-objects/deployment/core/model.ts";
import { noteHolders } from "./lock-book.ts";
import type { HostedObject } from "./platform/objects.ts";
import type { World } from "./platform/world.ts";

type Row = Record<string, unknown>;

/** States in which a job has the lane to itself. */
const OCCUPYING = new Set(["assigned", "running", "cancelling"]);

/** Rows of an object as they are stored now. */
export function rowsOf<R extends Row>(host: HostedObject, query: string): R[] {
  return host.storage.sql.exec(query).toArray() as R[];
}

/** Jobs that may hold locks: a look at the text spares most records their parsing. */
const MAY_HOLD = `record LIKE '%"heldAt":%'`;

const isHolder = ({ locks }: Job): boolean => locks?.heldAt != null;

/** The jobs of a deployment that hold locks, as far as it knows. */
export function holdersOf(host: HostedObject): Job[] {
  const rows = rowsOf<{ record: string }>(host, `SELECT record FROM jobs WHERE ${MAY_HOLD}`);
  return rows.map(({ record }) => JSON.parse(record) as Job).filter(isHolder);
}

/** True when the object has made its tables. */
export function hasTable(host: HostedObject, name: string): boolean {
  return rowsOf(host, `SELECT 1 AS there FROM sqlite_master WHERE name = '${name}'`).length > 0;
}

/** Where an object stands, as of its last commit. */
export type Standing = {
  /** Sequence of the newest event, and of the newest that a namespace is told. */
  head: number;
  told: number;
  /** Up to here its namespace has confirmed. */
  published: number;
  /** What it has still to do, in words; null when nothing is left. */
  open: string | null;
  removed: boolean;
  /** The runs that hold leases: one, or as many as a quorum has replicas. */
  leased: ReadonlySet<string>;
};

const standings = new WeakMap<HostedObject, Standing>();

/** Where an object stands; null for one that has stored nothing. */
export function standingOf(host: HostedObject): Standing | null {
  return standings.get(host) ?? null;
}

/** What a namespace is told of a deployment. */
export function isTold({ type }: Event): boolean {
  return type !== "job.progress" && type !== "derivation.changed";
}

/**
 * Looks at what an object stores after each of its commits: what can be said of a stream alone (I3), and of a deployment the leases (I1), epochs
 * (I5), ends (I6, I10), timers (I16) and locks (I24).
 */
export function watchCommits(world: World, host: HostedObject): void {
  if (host.className === "Pool") return;
  const standing: Standing = { head: 0, told: 0, published: 0, open: null, removed: false, leased: new Set() };
  const stream = new StreamCheck(world, host, standing);
  const lane = host.className === "Deployment" ? new LaneCheck(world, host, standing) : null;
  let isThere = false;
  host.onCommit = () => {
    isThere ||= hasTable(host, "event_rows") && hasTable(host, lane === null ? "outbox" : "lane");
    if (!isThere) return;
    standings.set(host, standing);
    const events = stream.check();
    if (lane !== null) lane.check(events);
    else standing.open = rowsOf(host, "SELECT 1 AS row FROM outbox LIMIT 1").length > 0 ? "rows to hand over" : null;
  };
}

/** A stream has every number once, and what was told stays told (I3). */
class StreamCheck {
  readonly #world: World;
  readonly #host: HostedObject;
  readonly #standing: Standing;

  constructor(world: World, host: HostedObject, standing: Standing) {
    this.#world = world;
    this.#host = host;
    this.#standing = standing;
  }

  check(): Event[] {
    const standing = this.#standing;
    const rows = this.#host.storage.sql
      .exec("SELECT first, last, events FROM event_rows WHERE last > ? ORDER BY first", standing.head)
      .toArray() as { first: number; last: number; events: string }[];
    const fresh: Event[] = [];
    for (const { first, last, events } of rows) {
      const list = JSON.parse(events) as Event[];
      const numbers = list.map(({ sequence }) => Number(sequence));
      if (
        first !== standing.head + 1 ||
        last - first + 1 !== list.length ||
        numbers.some((one, index) => one !== first + index)
      )
        this.#world.violate(
          "I3",
          `${this.#host.label} has ${numbers.join(" ")} in row ${first} to ${last} after ${standing.head}`,
        );
      standing.head = last;
      fresh.push(...list);
    }
    for (const { type, subject, sequence } of fresh)
      this.#world.note(`${this.#host.label} ${Number(sequence)} ${type} ${subject}`);
    this.#world.eventCount += fresh.length;
    standing.told = Number(fresh.findLast(isTold)?.sequence ?? standing.told);
    return fresh;
  }
}

/** What a deployment stores of its jobs. */
class LaneCheck {
  readonly #world: World;
  readonly #host: HostedObject;
  #epoch = 0;
  readonly #ends = new Map<JobId, string>();
  readonly #standing: Standing;

  constructor(world: World, host: HostedObject, standing: Standing) {
    this.#world = world;
    this.#host = host;
    this.#standing = standing;
  }

  check(events: readonly Event[]): void {
    this.#checkEnds(events);
    const [row] = rowsOf<{ record: string }>(this.#host, "SELECT record FROM lane");
    if (row === undefined) return;
    const lane = JSON.parse(row.record) as Lane;
    if (lane.epoch < this.#epoch) this.#violate("I5", `the epoch went back from ${this.#epoch} to ${lane.epoch}`);
    this.#epoch = lane.epoch;
    // One look at the table for both, because this follows every commit of every world.
    const rows = rowsOf<{ record: string; final: number }>(
      this.#host,
      `SELECT record, final FROM jobs WHERE final = 0 OR ${MAY_HOLD}`,
    ).map(({ record, final }) => ({ job: JSON.parse(record) as Job, final }));
    const live = rows.flatMap(({ job, final }) => (final === 0 ? [job] : []));
    this.#standing.published = lane.published;
    this.#standing.removed = lane.removedAt !== null;
    const locked = rows.map(({ job }) => job).filter(isHolder);
    noteHolders(this.#world, this.#host.name, locked);
    const open = [
      ...live.map(({ id, state }) => `${id} is ${state}`),
      ...lane.drops.map(({ job }) => `the ticket of ${job}`),
      ...lane.releases.map(({ job }) => `the locks of ${job}`),
      ...locked.map(({ id }) => `${id} keeps its locks`),
    ];
    this.#standing.open = open.length === 0 ? null : open.join(", ");
    const holders = live.filter(({ state }) => OCCUPYING.has(state));
    const leased = holders.flatMap(({ runs }) => runs.filter(({ finishedAt }) => finishedAt === null));
    this.#standing.leased = new Set(leased.map(({ id }) => id));
    if (holders.length > 1) this.#violate("I1", `${holders.map(({ id, state }) => `${id} is ${state}`).join(", ")}`);
    if (holders.some(({ runs }) => (runs.at(-1)?.epoch ?? 0) > lane.epoch))
      this.#violate("I5", "a lease is ahead of the lane");
    if (live.length + lane.releases.length > 0 && !this.#host.willWake && !this.#host.hasLostAlarm)
      this.#violate("I16", `no alarm is set, and ${open.join(", ")}`);
  }

  /** Final states are reached once and kept; only a person moves a job on, from `unknown`. */
  #checkEnds(events: readonly Event[]): void {
    for (const { type, data } of events) {
      const job = data.job;
      if (job === undefined || !type.startsWith("job.")) continue;
      const before = this.#ends.get(job.id);
      if (before !== undefined && before !== "unknown" && (before !== job.state || type === `job.${job.state}`))
        this.#violate("I10", `${job.id} was ${before}, then ${type} said ${job.state}`);
      if (isFinalJobState(job.state)) this.#ends.set(job.id, job.state);
    }
  }

  #violate(invariant: string, detail: string): void {
    this.#world.violate(invariant, `${this.#host.label}: ${detail}`);
  }
}
