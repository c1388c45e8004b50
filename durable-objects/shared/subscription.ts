import { LIMITS, type JobId, type Millis, type RESET_REASONS, type RunId } from "@plumule/protocol";
import { FULL_CREDIT, type Credit } from "./credit.ts";

/**
 * Where one subscription to events stands. `sequence` is the last event that was dealt with, `told` the last one that the client
 * can know of (a filter leaves events out without a frame). `lost` says why it had to start over; `replayed` counts what pages of the
 * log held until it was `live`.
 */
export type EventsSubscription = {
  readonly kind: "events";
  readonly id: string;
  readonly phase: "snapshot" | "replay" | "live";
  readonly lost: (typeof RESET_REASONS)[number] | null;
  readonly sequence: number;
  readonly told: number;
  readonly replayed: number;
  readonly types: readonly string[] | null;
  readonly jobs: readonly JobId[] | null;
};

/**
 * Where one subscription to a log stands, in bytes: sent up to `next`, read by the client up to `acked`. What was there when it began
 * (up to `kept`) is never skipped, however slowly it is read; what is written since then may be.
 */
export type LogSubscription = {
  readonly kind: "log";
  readonly id: string;
  readonly run: RunId;
  readonly next: number;
  readonly acked: number;
  readonly kept: number;
};

export type Subscription = EventsSubscription | LogSubscription;

/** All that is known of a socket. It is stored in the socket's attachment, so that a fresh instance goes on after hibernation. */
export type Session = {
  readonly version: 2;
  /** Who was admitted, and until when: whoever wants to go on is admitted anew, which a client does by itself. */
  readonly actor: string;
  readonly until: Millis;
  readonly connectedAt: Millis;
  readonly badFrames: number;
  readonly credit: Credit;
  readonly subscriptions: readonly Subscription[];
};

/**
 * Characters of an attachment to which subscriptions may be added. The platform takes 16,000 of them (all are ASCII by the schemas of
 * the frames); the rest is left for 32 subscriptions' numbers to grow.
 */
const ATTACHMENT_CHARACTERS = 14_500;

/** Whom the edge has admitted, until when (ms epoch). */
export type Admission = { actor: string; until: Millis };

/** A socket that has just connected. */
export function newSession({ actor, until }: Admission, now: Millis): Session {
  return { version: 2, actor, until, connectedAt: now, badFrames: 0, credit: FULL_CREDIT, subscriptions: [] };
}

/** The attachment of a session. A persisted form: a change needs another `version`. */
export function encodeSession(session: Session): string {
  return JSON.stringify(session);
}

/** Reads an attachment; null when another version of this code wrote it. */
export function decodeSession(attachment: unknown): Session | null {
  if (typeof attachment !== "string") return null;
  const session = JSON.parse(attachment) as Session;
  return session.version === 2 ? session : null;
}

/** The session with one subscription more; null when it has too many, by number or by what an attachment holds. */
export function join(session: Session, subscription: Subscription): Session | null {
  const joined = { ...session, subscriptions: [...session.subscriptions, subscription] };
  const fits =
    joined.subscriptions.length <= LIMITS.subscriptions && encodeSession(joined).length <= ATTACHMENT_CHARACTERS;
  return fits ? joined : null;
}

/** The session with a subscription moved on; null takes it out. */
export function place(session: Session, id: string, next: Subscription | null): Session {
  const subscriptions = session.subscriptions.flatMap((one) => (one.id !== id ? [one] : next === null ? [] : [next]));
  return { ...session, subscriptions };
}
