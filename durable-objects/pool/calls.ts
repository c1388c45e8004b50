import type {
  Assignment,
  DeploymentId,
  DRAIN_ENDS,
  ExecCall,
  JobId,
  Millis,
  Offer,
  PollBody,
  Priority,
  QueueView,
  Refusal,
  RunnerId,
  RunnerOrder,
  Waiting,
  Wants,
} from "@plumule/protocol";

/**
 * What a job needs of a runner: what its submitter requires, and the least version of the wire in which the job can be said. Tickets and
 * runners that were stored before versions were kept have none, and count as the first. `runners`: only these, because its secrets are sealed to them, or because a
 * quorum counts no other votes. `except`: none of these, because they have a part in its quorum already.
 */
export type Needs = Wants & { runners?: readonly RunnerId[]; except?: readonly RunnerId[] };

export type { Ability } from "@plumule/protocol";

/**
 * A job's entry in a pool. `number` is the deployment's epoch of the ticket: a higher one replaces a lower one, a lower one is stale.
 * `avoid` is a wish: such a runner gets the job only while no other online runner could take it, so that a fleet of one still retries.
 */
export type Ticket = {
  deployment: DeploymentId;
  job: JobId;
  number: number;
  priority: Priority;
  needs: Needs;
  queuedAt: Millis;
  avoid: readonly RunnerId[];
};

/** An order to a runner as it is kept; `drain` null takes an earlier one back. A higher number is a newer order. */
export type DrainOrder = {
  number: number;
  drain: { note: string | null; deadlineAt: Millis | null; end: (typeof DRAIN_ENDS)[number] } | null;
};

/** A parked poll set aside for one job. Lives in memory for `reservationMs`; `deliver` fills it. */
export type Reservation = { id: string; runner: RunnerId; offer: Offer; requestKey: string };

/** What a Pool knows of a runner that polls it. */
export type Presence = {
  runner: RunnerId;
  offer: Offer;
  /** The version of the wire that it speaks. Missing from a pool of older code. */
  protocol?: number;
  busy: number;
  seenAt: Millis;
  parked: boolean;
  drained: boolean;
};

/** What a poll is answered with: work, an order, a call into a session, or nothing. */
export type PollAnswer = Assignment | RunnerOrder | ExecCall | Refusal | null;

/**
 * What the edge and the other objects may ask of a Pool. It grants nothing: a lease comes from the Deployment alone.
 */
export type PoolCalls = {
  /** A runner's long poll, held at most 25 s. The same `requestKey` gets the same assignment. An order comes before any work. Null: nothing came. Refuses `unavailable` when too many polls are parked. */
  poll(call: { runner: RunnerId; body: PollBody }): Promise<PollAnswer>;
  /** Tells a runner, by a poll that is parked or the next one, that somebody waits for it. Refuses for one that is away or lets nobody in. */
  callIn(call: { runner: RunnerId; call: ExecCall }): Promise<Refusal | null>;
  /** Fast path: sets a fitting parked poll aside, unless something older or more urgent waits. Null: use a ticket. */
  reserve(call: { ticket: Ticket }): Promise<Reservation | null>;
  /** Fast path: fills the reserved poll. False: the reservation is gone, the acknowledge deadline will send the job back. */
  deliver(call: { reservation: string; runner: RunnerId; assignment: Assignment }): Promise<boolean>;
  /** Fast path, when the deployment decided otherwise: the poll is free again. */
  release(call: { reservation: string }): Promise<void>;
  /**
   * Backlog path: stores a ticket and answers why it waits; null when it is being handed out already. Idempotent by job and number. Refuses
   * `quota-exceeded` when the pool is full: nothing is stored, the sender keeps the ticket and puts it again later.
   */
  put(call: { ticket: Ticket }): Promise<Waiting | Refusal | null>;
  /** Takes tickets out, up to and including `number`. Idempotent. */
  drop(call: { deployment: DeploymentId; job: JobId; number: number }): Promise<void>;
  /** Why a job waits, now. Null when it has no ticket here. */
  explain(job: JobId): Promise<Waiting | null>;
  /** The tickets in dispatch order. (`queue` itself is the name of an event handler of Workers, which cannot be called.) */
  listQueue(call: { limit: number }): Promise<QueueView>;
  presence(): Promise<Presence[]>;
  /** `order` is what the runner itself is told; older code gives none. */
  setDrained(call: { runner: RunnerId; drained: boolean; order?: DrainOrder | null }): Promise<void>;
  /** Ends the runner's parked polls and forgets it; its leases end by themselves. */
  forget(call: { runner: RunnerId }): Promise<void>;
};
