import type { DeploymentId, JobId, Millis, RunnerId } from "@plumule/protocol";
import type { Ability, Needs, Ticket } from "../calls.ts";
import { admits, fits, signatureOf } from "./fit.ts";
import { compare } from "./order.ts";

/** Deployments whose last turn is remembered. A forgotten one counts as never served: it gains one turn, no more. */
const TURNS_KEPT = 10_000;

/** Tickets at the front of a line that a look through all lines sees. */
const LINE_LOOKED = 100;

/** What a deployment was last told about a ticket. `position` null: not known any more, since the object has lost its memory. */
export type Told = { reason: string; nearest: string | null; position: number | null };

/**
 * A ticket in memory. `held`: a claim of it is under way, nobody else may have it. `notBefore` and `failureCount`: the back-off after claims
 * that failed for reasons of infrastructure.
 */
export type Entry = {
  ticket: Ticket;
  turn: number;
  held: boolean;
  notBefore: Millis;
  failureCount: number;
  told: Told | null;
};

type Line = { needs: Needs; entries: Entry[] };

/** Index of the first entry that does not go before `entry`. */
function placeIn(entries: readonly Entry[], entry: Entry): number {
  let [low, high] = [0, entries.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compare(entries[middle] as Entry, entry) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The tickets that wait, in memory: one sorted line per kind of needs. */
export class Backlog {
  readonly #entries = new Map<JobId, Entry>();
  readonly #lines = new Map<string, Line>();
  readonly #ofDeployment = new Map<DeploymentId, Set<Entry>>();
  readonly #turns = new Map<DeploymentId, number>();
  #servedCount = 0;

  /** How many tickets there are, held ones included. */
  get size(): number {
    return this.#entries.size;
  }

  /** The entry of a job. */
  get(job: JobId): Entry | undefined {
    return this.#entries.get(job);
  }

  /** Adds a ticket, or replaces the job's older one; a held entry stays held. The caller has refused stale numbers. */
  put(ticket: Ticket): Entry {
    const known = this.#entries.get(ticket.job);
    if (known !== undefined) {
      if (!known.held) this.#leaveLine(known);
      known.ticket = ticket;
      known.notBefore = 0;
      known.failureCount = 0;
      if (!known.held) this.#joinLine(known);
      return known;
    }
    const turn = this.#turns.get(ticket.deployment) ?? 0;
    const entry: Entry = { ticket, turn, held: false, notBefore: 0, failureCount: 0, told: null };
    this.#entries.set(ticket.job, entry);
    const siblings = this.#ofDeployment.get(ticket.deployment);
    if (siblings === undefined) this.#ofDeployment.set(ticket.deployment, new Set([entry]));
    else siblings.add(entry);
    this.#joinLine(entry);
    return entry;
  }

  /** Forgets an entry, held or not. */
  remove(entry: Entry): void {
    if (this.#entries.get(entry.ticket.job) !== entry) return;
    this.#entries.delete(entry.ticket.job);
    if (!entry.held) this.#leaveLine(entry);
    const siblings = this.#ofDeployment.get(entry.ticket.deployment);
    siblings?.delete(entry);
    if (siblings?.size === 0) this.#ofDeployment.delete(entry.ticket.deployment);
  }

  /** Takes an entry out of its line while it is being claimed. Throws for one that is held: it would be offered twice. */
  hold(entry: Entry): void {
    if (entry.held) throw new Error(`the ticket of job ${entry.ticket.job} is claimed twice`);
    this.#leaveLine(entry);
    entry.held = true;
  }

  /** Puts a held entry back at its place, unless it was removed meanwhile. */
  giveBack(entry: Entry): void {
    entry.held = false;
    if (this.#entries.get(entry.ticket.job) === entry) this.#joinLine(entry);
  }

  /** Notes that a deployment had its turn: its other tickets now yield to those of equal rank. */
  served(deployment: DeploymentId): void {
    this.#servedCount += 1;
    this.#turns.delete(deployment);
    this.#turns.set(deployment, this.#servedCount);
    const oldest = this.#turns.size > TURNS_KEPT ? this.#turns.keys().next().value : undefined;
    if (oldest !== undefined) this.#turns.delete(oldest);
    for (const entry of this.#ofDeployment.get(deployment) ?? []) {
      if (!entry.held) this.#leaveLine(entry);
      entry.turn = this.#servedCount;
      if (!entry.held) this.#joinLine(entry);
    }
  }

  /**
   * The first ticket that an offer fits and that `allowed` lets through; null when there is none. With `runner`, lines that name others are
   * passed over as a whole.
   */
  best(offer: Ability, allowed: (entry: Entry) => boolean, runner?: RunnerId): Entry | null {
    let best: Entry | null = null;
    for (const line of this.#lines.values()) {
      if (!fits(line.needs, offer) || (runner !== undefined && !admits(line.needs, runner))) continue;
      const first = line.entries.find(allowed);
      if (first !== undefined && (best === null || compare(first, best) < 0)) best = first;
    }
    return best;
  }

  /** Whether `best` goes before a ticket that is not stored. */
  isBefore(best: Entry, ticket: Ticket): boolean {
    return compare(best, { ticket, turn: this.#turns.get(ticket.deployment) ?? 0 }) < 0;
  }

  /**
   * How many tickets go first. A ticket stands in the line of every kind of runner that could take it; the shortest of them counts, so
   * that work for machines that nobody has makes nobody else's line look longer. Without such a runner, tickets of equal needs count.
   */
  position(entry: Entry, offers: readonly Ability[]): number {
    const { needs } = entry.ticket;
    const shortest = offers
      .filter((offer) => fits(needs, offer))
      .reduce(
        (least, offer) =>
          Math.min(
            least,
            this.#aheadOf(entry, (line) => fits(line.needs, offer)),
          ),
        Infinity,
      );
    if (shortest < Infinity) return shortest;
    const own = this.#lines.get(signatureOf(needs));
    return this.#aheadOf(entry, (line) => line === own);
  }

  /** The first tickets in dispatch order, without those that are being claimed. */
  first(count: number): Entry[] {
    const heads = Array.from(this.#lines.values(), (line) => line.entries.slice(0, count));
    return heads.flat().sort(compare).slice(0, count);
  }

  /** The lines one after another, a bounded part of each: where a change of the fleet is felt first. */
  *inLines(): Generator<Entry> {
    for (const line of this.#lines.values()) yield* line.entries.slice(0, LINE_LOOKED);
  }

  #aheadOf(entry: Entry, counts: (line: Line) => boolean): number {
    let count = 0;
    for (const line of this.#lines.values()) if (counts(line)) count += placeIn(line.entries, entry);
    return count;
  }

  #joinLine(entry: Entry): void {
    const signature = signatureOf(entry.ticket.needs);
    let line = this.#lines.get(signature);
    if (line === undefined) {
      line = { needs: entry.ticket.needs, entries: [] };
      this.#lines.set(signature, line);
    }
    line.entries.splice(placeIn(line.entries, entry), 0, entry);
  }

  #leaveLine(entry: Entry): void {
    const signature = signatureOf(entry.ticket.needs);
    const line = this.#lines.get(signature);
    if (line === undefined) return;
    line.entries.splice(placeIn(line.entries, entry), 1);
    if (line.entries.length === 0) this.#lines.delete(signature);
  }
}
