import { PROTOCOL_VERSION, type RunnerId } from "@plumule/protocol";
import type { Ability, Ticket } from "#durable-objects/pool/calls.ts";
import { Backlog, type Entry } from "#durable-objects/pool/core/backlog.ts";
import { Deliveries } from "#durable-objects/pool/core/deliveries.ts";
import { Fleet, type Poll } from "#durable-objects/pool/core/fleet.ts";
import { claimAssignment } from "./assignment.ts";
import type { Core } from "./core.ts";
import { type ClaimModel, type Lease, NOW, type PollModel, type PoolModel } from "./world.ts";

const OFFER: Ability = {
  name: "runner",
  systems: ["x86_64-linux"],
  features: ["nix", "effects", "expansion"],
  labels: [],
  isolation: "process-group",
  version: "1",
  capacity: 1,
  protocol: PROTOCOL_VERSION,
};

const samePoll = (a: { runner: RunnerId; key: string }, b: { runner: RunnerId; key: string }): boolean =>
  a.runner === b.runner && a.key === b.key;

/**
 * A pool for the length of one step: the real fleet, backlog and deliveries, filled from a `PoolModel`, with the few lines of the object
 * around them. Answers to polls are collected in `answers`.
 */
export class PoolStep {
  readonly #fleet = new Fleet();
  readonly #backlog = new Backlog();
  readonly #deliveries = new Deliveries();
  #model: PoolModel;
  readonly answers: { runner: RunnerId; key: string; lease: Lease | null }[] = [];

  constructor(model: PoolModel) {
    this.#model = model;
    for (const runner of model.known) this.#fleet.see(runner, OFFER, 1, false, NOW);
    for (const poll of model.polls) this.#park(poll);
    for (const ticket of model.tickets) this.#backlog.put(ticket);
    for (const claim of model.claims) {
      const entry = this.#backlog.get(claim.job);
      if (entry !== undefined && !entry.held) this.#backlog.hold(entry);
      this.#setAside(claim);
    }
    for (const reservation of model.reservations) this.#setAside(reservation);
    for (const { runner, key, lease } of model.deliveries)
      this.#deliveries.keep(runner, key, claimAssignment(lease, key), NOW);
  }

  get model(): PoolModel {
    return this.#model;
  }

  /** A poll comes in: it is answered at once, or parked and perhaps given a claim. */
  poll({ runner, key }: PollModel): void {
    if (this.#deliveries.get(runner, key, NOW) !== null) {
      const kept = this.#model.deliveries.find((one) => samePoll(one, { runner, key }));
      this.answers.push({ runner, key, lease: kept?.lease ?? null });
      return;
    }
    if (!this.#model.known.includes(runner)) this.#set({ known: [...this.#model.known, runner].sort() });
    const polls = this.#model.polls.filter((one) => !samePoll(one, { runner, key }));
    this.#set({ polls: [...polls, { runner, key }] });
    const ended = this.#park({ runner, key });
    for (const poll of ended) this.#left(poll, null);
    this.serve({ runner, key });
  }

  /** Sets a poll aside for a ticket; null when none is free, or when another ticket goes first. */
  reserve(ticket: Ticket): PollModel | null {
    const poll = this.#fleet.readyPoll(ticket.needs, ticket.avoid);
    if (poll === null) return null;
    const first = this.#bestFor(poll);
    if (first !== null && this.#backlog.isBefore(first, ticket)) {
      this.serve({ runner: poll.runner.id, key: poll.requestKey });
      return null;
    }
    this.#fleet.setAside(poll);
    const reservation = { runner: poll.runner.id, key: poll.requestKey };
    this.#set({ reservations: [...this.#model.reservations, reservation] });
    return reservation;
  }

  /** The hold of a poll ends without a job. */
  end(poll: PollModel): void {
    const parked = this.#fleet.get(poll.runner)?.polls.get(poll.key);
    if (parked?.state !== "free") return;
    this.#fleet.leave(parked);
    this.#left(poll, null);
  }

  /** Fills a reserved poll, or one with its key that is parked again. */
  deliver(reservation: PollModel, lease: Lease): void {
    this.#endReservation(reservation);
    const poll = this.#fleet.get(reservation.runner)?.polls.get(reservation.key);
    if (poll !== undefined && poll.state !== "gone" && !this.#isClaiming(reservation)) this.#assign(poll, lease);
  }

  /** A reservation ends without a lease. */
  release(reservation: PollModel): void {
    if (!this.#endReservation(reservation)) return;
    const poll = this.#fleet.get(reservation.runner)?.polls.get(reservation.key);
    if (poll !== undefined) this.#fleet.free(poll);
    this.serve(reservation);
  }

  /** Stores a ticket unless a newer one is here. */
  put(ticket: Ticket): void {
    const known = this.#backlog.get(ticket.job);
    if (known !== undefined && known.ticket.number >= ticket.number) return;
    const entry = this.#backlog.put(ticket);
    const tickets = this.#model.tickets.filter(({ job }) => job !== ticket.job);
    this.#set({ tickets: [...tickets, ticket].sort((a, b) => (a.job < b.job ? -1 : 1)) });
    const poll = entry.held ? null : this.#fleet.readyPoll(ticket.needs, ticket.avoid);
    if (poll !== null) this.serve({ runner: poll.runner.id, key: poll.requestKey });
  }

  /** Takes a ticket out, unless it is newer. */
  drop(core: Core, job: string, number: number): void {
    const entry = this.#backlog.get(job);
    if (entry === undefined || !core.storage.drops(entry.ticket, number)) return;
    this.#remove(entry);
  }

  /** A deployment answered a claim: with a lease, with null, or (`lost`) not in time. */
  claimed(claim: ClaimModel, answer: Lease | null | "lost"): void {
    this.#set({ claims: this.#model.claims.filter((one) => one !== claim) });
    const entry = this.#backlog.get(claim.job);
    const poll = this.#fleet.get(claim.runner)?.polls.get(claim.key);
    if (answer !== "lost" && entry?.ticket.number === claim.number) this.#remove(entry);
    else if (entry !== undefined) this.#backlog.giveBack(entry);
    if (poll === undefined) return;
    if (answer !== null && answer !== "lost") return this.#assign(poll, answer);
    this.#fleet.free(poll);
    if (answer === null) this.serve(claim);
  }

  /** A free poll looks for a ticket and claims it. True when there was one. */
  serve({ runner, key }: { runner: RunnerId; key: string }): boolean {
    const poll = this.#fleet.get(runner)?.polls.get(key);
    if (poll === undefined || !this.#fleet.canTake(poll)) return false;
    const entry = this.#bestFor(poll);
    if (entry === null) return false;
    this.#fleet.setAside(poll);
    this.#backlog.hold(entry);
    const { job, number } = entry.ticket;
    this.#set({ claims: [...this.#model.claims, { runner, key, job, number }] });
    return true;
  }

  #bestFor(poll: Poll): Entry | null {
    const { runner } = poll;
    return this.#backlog.best(runner.offer, ({ ticket }) => this.#fleet.mayTake(runner, ticket.needs, ticket.avoid));
  }

  #park({ runner, key }: PollModel): { runner: RunnerId; key: string }[] {
    const seen = this.#fleet.see(runner, OFFER, 0, false, NOW);
    const { ended } = this.#fleet.park(seen.runner, key);
    return ended.map((poll) => ({ runner, key: poll.requestKey }));
  }

  #setAside({ runner, key }: { runner: RunnerId; key: string }): void {
    const poll = this.#fleet.get(runner)?.polls.get(key);
    if (poll !== undefined && poll.state === "free") this.#fleet.setAside(poll);
  }

  #assign(poll: Poll, lease: Lease): void {
    const [runner, key] = [poll.runner.id, poll.requestKey];
    this.#set({ deliveries: [...this.#model.deliveries, { runner, key, lease }] });
    this.#fleet.assigned(poll.runner);
    this.#fleet.leave(poll);
    this.#left({ runner, key }, lease);
  }

  #left(poll: { runner: RunnerId; key: string }, lease: Lease | null): void {
    this.#set({ polls: this.#model.polls.filter((one) => !samePoll(one, poll)) });
    this.answers.push({ ...poll, lease });
  }

  #remove(entry: Entry): void {
    this.#backlog.remove(entry);
    this.#set({ tickets: this.#model.tickets.filter(({ job }) => job !== entry.ticket.job) });
  }

  #isClaiming(poll: PollModel): boolean {
    return this.#model.claims.some((one) => samePoll(one, poll));
  }

  #endReservation(poll: PollModel): boolean {
    const rest = this.#model.reservations.filter((one) => !samePoll(one, poll));
    const found = rest.length < this.#model.reservations.length;
    this.#set({ reservations: rest });
    return found;
  }

  #set(changes: Partial<PoolModel>): void {
    this.#model = { ...this.#model, ...changes };
  }
}
