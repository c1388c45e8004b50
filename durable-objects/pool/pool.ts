import { DurableObject } from "cloudflare:workers";
import { formatTime, LIMITS, refuse, UNNAMED_PROTOCOL } from "@plumule/protocol";
import type {
  Assignment,
  DeploymentId,
  ExecCall,
  JobId,
  Millis,
  PollBody,
  QueueView,
  Refusal,
  RunnerId,
  Waiting,
} from "@plumule/protocol";
import type { ClaimCall } from "../deployment/calls.ts";
import type { Env } from "../env.ts";
import { isStorageAhead } from "../shared/ahead.ts";
import { migrate } from "../shared/migrate.ts";
import { deploymentObject } from "../shared/names.ts";
import { within } from "../shared/within.ts";
import type { Ability, DrainOrder, PollAnswer, PoolCalls, Presence, Reservation, Ticket } from "./calls.ts";
import { Backlog } from "./core/backlog.ts";
import type { Entry } from "./core/backlog.ts";
import { Deliveries } from "./core/deliveries.ts";
import { explain, outlookOf } from "./core/explain.ts";
import type { Outlook } from "./core/explain.ts";
import { signatureOf } from "./core/fit.ts";
import { Fleet } from "./core/fleet.ts";
import type { Poll, Runner } from "./core/fleet.ts";
import { toldOf } from "./core/news.ts";
import { orderFor } from "./core/orders.ts";
import { ExecCalls, refuseCall } from "./exec-calls.ts";
import { MIGRATIONS } from "./migrations.ts";
import { Parking } from "./parking.ts";
import { readRunners, readTickets, removeRunner, removeTicket, saveRunner, saveTicket, saveTold } from "./store.ts";
import { Teller } from "./teller.ts";

/** A claim that takes longer counts as failed, ms: its poll would otherwise be held beyond what a client waits. */
const CLAIM_MS = 3_000;

/** First and longest rest of a ticket after a failed claim, ms. */
const REST_MS = 1_000;
const REST_MAX_MS = 60_000;

/**
 * How old the stored time of a runner may become, ms. A row per poll would be the greatest part of the bill; a time much older would show a
 * runner that left as online for as long, since an idle pool is evicted and believes what is stored.
 */
const SEEN_SAVED_MS = 60_000;

/**
 * The match-maker of a pool. It grants nothing: every lease comes from a Deployment, so a pool that forgets or repeats itself costs time and
 * never starts a job twice.
 *
 * Tickets and runners are stored; polls, reservations and deliveries live in memory. What an eviction takes comes back by itself: runners
 * poll again; a reservation is filled by its request key, or else its job returns by the acknowledge deadline; a claim that was under way
 * left its ticket in storage, and the poll that comes again with the same key claims it again and is given the same lease.
 * The same key may then also be given another job, while the lost one still waits for its acknowledgement. That does no harm: a runner has
 * one key per poll and starts an assignment only when the heartbeat for it was accepted, so the lost job was never begun.
 */
export class Pool extends DurableObject<Env> implements PoolCalls {
  readonly #sql: SqlStorage;
  readonly #namespace: string;
  readonly #pool: string;
  readonly #backlog = new Backlog();
  readonly #fleet = new Fleet();
  readonly #parking = new Parking();
  readonly #calls = new ExecCalls();
  readonly #deliveries = new Deliveries();
  readonly #reservations = new Map<string, { poll: Poll; expiry: ReturnType<typeof setTimeout> }>();
  readonly #drained = new Set<RunnerId>();
  readonly #orders = new Map<RunnerId, DrainOrder>();
  readonly #savedAt = new Map<RunnerId, Millis>();
  readonly #spent: Ticket[] = [];
  readonly #teller = new Teller({
    later: (work) => this.ctx.waitUntil(work),
    entries: () => this.#backlog.inLines(),
    look: () => this.#look(),
    save: (job, reason) => saveTold(this.#sql, job, reason),
    send: (deployment, changes) => this.#deployment(deployment).waiting({ changes }),
  });
  #alarmAt: Millis | null = null;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    const [namespace, pool] = (ctx.id.name ?? "").split("/");
    if (namespace === undefined || pool === undefined)
      throw new Error("a pool is addressed by name, as poolObject does");
    this.#namespace = namespace;
    this.#pool = pool;
    this.#sql = ctx.storage.sql;
    if (isStorageAhead(ctx, MIGRATIONS)) return;
    migrate(ctx.storage, MIGRATIONS);
    this.#load(Date.now());
  }

  async poll({ runner: id, body }: { runner: RunnerId; body: PollBody }): Promise<PollAnswer> {
    const now = Date.now();
    const delivered = this.#deliveries.get(id, body.requestKey, now);
    if (delivered !== null) return delivered;
    const runner = this.#see(id, { ...body.offer, protocol: body.protocol }, body.busy, now);
    const order = orderFor(this.#orders.get(id), body.seenOrder, now);
    if (order !== null) return order;
    const call = this.#calls.take(id, now);
    if (call !== null) return call;
    if (this.#fleet.parkedCount >= LIMITS.parkedPolls && !runner.polls.has(body.requestKey))
      return refuse("unavailable", `pool ${this.#pool} holds its limit of ${LIMITS.parkedPolls} polls`);
    const { poll, ended } = this.#fleet.park(runner, body.requestKey);
    for (const other of ended) this.#answer(other, null);
    const answer = this.#parking.hold(poll, body.waitMs ?? LIMITS.pollHoldMs, () => this.#endHold(poll));
    this.#serve(poll);
    return answer;
  }

  async reserve({ ticket }: { ticket: Ticket }): Promise<Reservation | null> {
    const poll = this.#fleet.readyPoll(ticket.needs, ticket.avoid);
    if (poll === null) return null;
    const first = this.#bestFor(poll.runner);
    if (first !== null && this.#backlog.isBefore(first, ticket)) {
      this.#serve(poll);
      return null;
    }
    this.#fleet.setAside(poll);
    const id = crypto.randomUUID();
    this.#reservations.set(id, { poll, expiry: setTimeout(() => this.#endReservation(id), LIMITS.reservationMs) });
    return { id, runner: poll.runner.id, offer: poll.runner.offer, requestKey: poll.requestKey };
  }

  async deliver(call: { reservation: string; runner: RunnerId; assignment: Assignment }): Promise<boolean> {
    const { requestKey, run } = call.assignment;
    if (this.#deliveries.get(call.runner, requestKey, Date.now())?.run === run) return true;
    const reserved = this.#takeReservation(call.reservation);
    const parked = this.#fleet.get(call.runner)?.polls.get(requestKey);
    const poll = reserved ?? (parked !== undefined && this.#fleet.canTake(parked) ? parked : null);
    if (poll === null || poll.state === "gone") return false;
    this.#assign(poll, call.assignment);
    return true;
  }

  async release({ reservation }: { reservation: string }): Promise<void> {
    this.#endReservation(reservation);
  }

  async put({ ticket }: { ticket: Ticket }): Promise<Waiting | Refusal | null> {
    const known = this.#backlog.get(ticket.job);
    if (known !== undefined && known.ticket.number >= ticket.number) return known.held ? null : this.#look()(known);
    if (known === undefined && this.#backlog.size >= LIMITS.poolTickets)
      return refuse("quota-exceeded", `pool ${this.#pool} holds its limit of ${LIMITS.poolTickets} tickets`);
    const entry = this.#backlog.put(ticket);
    const poll = entry.held ? null : this.#fleet.readyPoll(ticket.needs, ticket.avoid);
    const waiting = entry.held || poll !== null ? null : this.#look()(entry);
    entry.told = waiting === null ? null : toldOf(waiting);
    saveTicket(this.#sql, ticket, waiting?.reason ?? null);
    if (poll !== null) this.#serve(poll);
    this.#arm();
    return waiting;
  }

  async drop({ deployment, job, number }: { deployment: DeploymentId; job: JobId; number: number }): Promise<void> {
    const entry = this.#backlog.get(job);
    if (entry === undefined || entry.ticket.deployment !== deployment || entry.ticket.number > number) return;
    this.#backlog.remove(entry);
    removeTicket(this.#sql, job, number);
    this.#teller.soon();
  }

  async explain(job: JobId): Promise<Waiting | null> {
    const entry = this.#backlog.get(job);
    return entry === undefined ? null : this.#look()(entry);
  }

  async listQueue({ limit }: { limit: number }): Promise<QueueView> {
    const look = this.#look();
    const tickets = this.#backlog.first(Math.min(limit, LIMITS.listPage)).map((entry) => {
      const { job, deployment, priority, queuedAt } = entry.ticket;
      return { job, deployment, priority, queuedAt: formatTime(queuedAt), waiting: look(entry) };
    });
    return { pool: this.#pool, ticketCount: this.#backlog.size, parkedCount: this.#fleet.parkedCount, tickets };
  }

  async presence(): Promise<Presence[]> {
    return Array.from(this.#fleet.runners(), ({ id, offer: { protocol, ...offer }, busy, seenAt, polls, drained }) => {
      const parked = polls.size > 0;
      return { runner: id, offer, protocol: protocol ?? UNNAMED_PROTOCOL, busy, seenAt, parked, drained };
    });
  }

  async setDrained({ runner: id, drained, order = null }: Parameters<PoolCalls["setDrained"]>[0]): Promise<void> {
    const known = this.#orders.get(id) ?? null;
    if (this.#drained.has(id) === drained && (order?.number ?? 0) <= (known?.number ?? 0)) return;
    if (order !== null) this.#orders.set(id, order);
    if (drained) this.#drained.add(id);
    else this.#drained.delete(id);
    const runner = this.#fleet.get(id);
    saveRunner(this.#sql, {
      id,
      offer: runner?.offer ?? null,
      drained,
      seenAt: runner?.seenAt ?? 0,
      order: order ?? known,
    });
    if (runner === undefined) return;
    this.#fleet.drain(runner, drained);
    // A poll that waits ends, so that the next one hears of the order.
    for (const poll of runner.polls.values()) {
      if (order === null) this.#serve(poll);
      else this.#endHold(poll);
    }
    this.#teller.soon();
  }

  async callIn({ runner: id, call }: { runner: RunnerId; call: ExecCall }): Promise<Refusal | null> {
    const now = Date.now();
    this.#fleet.expire(now);
    const runner = this.#fleet.get(id);
    const refusal = refuseCall(runner);
    if (runner === undefined || refusal !== null) return refusal;
    this.#calls.add(id, call, now);
    const parked = [...runner.polls.values()].find(({ state }) => state === "free");
    if (parked !== undefined) this.#answer(parked, this.#calls.take(id, now));
    return null;
  }

  async forget({ runner: id }: { runner: RunnerId }): Promise<void> {
    removeRunner(this.#sql, id);
    this.#drained.delete(id);
    this.#orders.delete(id);
    this.#savedAt.delete(id);
    this.#deliveries.forget(id);
    const runner = this.#fleet.get(id);
    if (runner === undefined) return;
    for (const poll of this.#fleet.forget(runner)) this.#answer(poll, null);
    this.#teller.soon();
  }

  /** Runners that fell silent while nobody polls and tickets wait: their deployments are told. */
  override async alarm(): Promise<void> {
    this.#alarmAt = null;
    this.#fleet.expire(Date.now());
    this.#teller.soon();
    this.#arm();
  }

  /** A runner may have been seen until `SEEN_SAVED_MS` after what its row says: it has the benefit of the doubt. */
  #load(now: Millis): void {
    for (const { id, offer, drained, seenAt, order } of readRunners(this.#sql)) {
      if (drained) this.#drained.add(id);
      if (order !== null) this.#orders.set(id, order);
      this.#savedAt.set(id, seenAt);
      if (offer !== null) this.#fleet.see(id, offer, 0, drained, Math.min(now, seenAt + SEEN_SAVED_MS));
    }
    this.#fleet.expire(now);
    for (const { ticket, told } of readTickets(this.#sql))
      this.#backlog.put(ticket).told = told === null ? null : { reason: told, nearest: null, position: null };
  }

  #see(id: RunnerId, offer: Ability, busy: number, now: Millis): Runner {
    const left = this.#fleet.expire(now);
    const drained = this.#drained.has(id);
    const { runner, changed } = this.#fleet.see(id, offer, busy, drained, now);
    if (changed || now - (this.#savedAt.get(id) ?? 0) > SEEN_SAVED_MS) {
      saveRunner(this.#sql, { id, offer, drained, seenAt: now, order: this.#orders.get(id) ?? null });
      this.#savedAt.set(id, now);
    }
    if (changed || left) this.#teller.soon();
    return runner;
  }

  #endHold(poll: Poll): void {
    poll.over = true;
    if (poll.state === "free") this.#answer(poll, null);
  }

  #answer(poll: Poll, answer: Assignment | ExecCall | null): void {
    this.#fleet.leave(poll);
    this.#parking.answer(poll, answer);
    this.#arm();
  }

  #assign(poll: Poll, assignment: Assignment): void {
    this.#deliveries.keep(poll.runner.id, poll.requestKey, assignment, Date.now());
    this.#backlog.served(assignment.deployment);
    this.#fleet.assigned(poll.runner);
    this.#answer(poll, assignment);
  }

  #takeReservation(id: string): Poll | null {
    const reserved = this.#reservations.get(id);
    if (reserved === undefined) return null;
    clearTimeout(reserved.expiry);
    this.#reservations.delete(id);
    return reserved.poll;
  }

  #endReservation(id: string): void {
    const poll = this.#takeReservation(id);
    if (poll !== null) this.#free(poll);
  }

  /** What a poll was set aside for came to nothing. */
  #free(poll: Poll): void {
    this.#fleet.free(poll);
    if (poll.over) this.#answer(poll, null);
    else this.#serve(poll);
  }

  #bestFor(runner: Runner): Entry | null {
    const now = Date.now();
    const allowed = ({ notBefore, ticket }: Entry): boolean =>
      notBefore <= now && this.#fleet.mayTake(runner, ticket.needs, ticket.avoid);
    return this.#backlog.best(runner.offer, allowed, runner.id);
  }

  /** Starts a claim for a poll, when it is free and there is a ticket for it. */
  #serve(poll: Poll): void {
    const entry = this.#fleet.canTake(poll) ? this.#bestFor(poll.runner) : null;
    if (entry === null) return;
    this.#fleet.setAside(poll);
    this.#backlog.hold(entry);
    this.ctx.waitUntil(this.#claim(poll, entry));
  }

  /** Claims one ticket for one poll. Both are set aside meanwhile, so that no second claim names either. Never throws. */
  async #claim(poll: Poll, entry: Entry): Promise<void> {
    const { ticket } = entry;
    const { id: runner, offer } = poll.runner;
    const call: ClaimCall = { job: ticket.job, runner, offer, requestKey: poll.requestKey, ticket: ticket.number };
    const claim = within(CLAIM_MS, this.#deployment(ticket.deployment).claim(call));
    const answer = await claim.catch(() => "failed" as const);
    if (answer === "failed") return this.#rest(poll, entry);
    this.#spend(entry, ticket);
    if (answer === null) this.#free(poll);
    // A copy, because what a call returned can be disposed of: passed on as it is, its receiver would have to do so.
    else this.#assign(poll, { ...answer });
    this.#teller.soon();
  }

  /** A claim failed for reasons of infrastructure: the ticket stays, and rests; its poll looks again and again as long as it waits. */
  #rest(poll: Poll, entry: Entry): void {
    entry.notBefore = Date.now() + Math.min(REST_MAX_MS, REST_MS * 2 ** entry.failureCount);
    entry.failureCount += 1;
    this.#backlog.giveBack(entry);
    this.#fleet.free(poll);
    if (poll.over) this.#answer(poll, null);
    else this.#parking.repeat(poll, REST_MS, () => this.#serve(poll));
  }

  /**
   * A ticket was used or refused. Its row is removed after the poll was answered: an answer waits for the rows written before it, and a
   * stale ticket does no harm. A newer ticket that came meanwhile stays.
   */
  #spend(entry: Entry, ticket: Ticket): void {
    if (entry.ticket.number === ticket.number) this.#backlog.remove(entry);
    else {
      this.#backlog.giveBack(entry);
      const poll = this.#fleet.readyPoll(entry.ticket.needs, entry.ticket.avoid);
      if (poll !== null) this.#serve(poll);
    }
    if (this.#spent.push(ticket) > 1) return;
    const remove = (): void => {
      for (const { job, number } of this.#spent.splice(0)) removeTicket(this.#sql, job, number);
    };
    this.ctx.waitUntil(scheduler.wait(0).then(remove));
  }

  /** Explains tickets as things stand at this moment: the fleet is looked at once for all of equal needs. */
  #look(): (entry: Entry) => Waiting {
    const offers = this.#fleet.offers();
    const outlooks = new Map<string, Outlook>();
    return (entry) => {
      const { needs } = entry.ticket;
      const signature = signatureOf(needs);
      const outlook = outlooks.get(signature) ?? outlookOf(needs, this.#fleet.runners());
      outlooks.set(signature, outlook);
      return explain(needs, this.#backlog.position(entry, offers), outlook, this.#pool);
    };
  }

  #deployment(id: DeploymentId): ReturnType<typeof deploymentObject> {
    return deploymentObject(this.env, this.#namespace, id);
  }

  /**
   * One alarm, and only where nothing else wakes the object: tickets wait, nobody polls, and a runner may fall silent. It is never moved,
   * since moving it costs a row; when it comes, it looks again.
   */
  #arm(): void {
    if (this.#backlog.size === 0 || this.#fleet.parkedCount > 0 || this.#alarmAt !== null) return;
    this.#alarmAt = this.#fleet.nextExpiryAt();
    if (this.#alarmAt !== null) this.ctx.waitUntil(this.ctx.storage.setAlarm(this.#alarmAt));
  }
}
