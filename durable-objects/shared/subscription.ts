import { LIMITS, type Event, type JobId, type Millis, type RunId } from "@plumule/protocol";

/**
 * Where one subscription to events stands. `sequence` is the last event that was dealt with, `told` the last one that the client
 * can know of (a filter leaves events out without a frame). Until `live` it is fed pages of the log; `replayed` counts what those held.
 */
export type EventsSubscription = {
  kind: "events";
  id: string;
  sequence: number;
  told: number;
  live: boolean;
  recovered: boolean;
  replayed: number;
  types: readonly string[] | null;
  jobs: readonly JobId[] | null;
};

/**
 * Where one subscription to a log stands, in bytes: sent up to `next`, read by the client up to `acked`. What was there when it began
 * (up to `kept`) is never skipped, however slowly it is read; what is written since then may be.
 */
export type LogSubscription = { kind: "log"; id: string; run: RunId; next: number; acked: number; kept: number };

export type Subscription = EventsSubscription | LogSubscription;

/** All that is known of a socket. It is stored in the socket's attachment, so that a fresh instance goes on after hibernation. */
export type Session = {
  readonly version: 1;
  readonly connectedAt: Millis;
  readonly badFrames: number;
  readonly subscriptions: readonly Subscription[];
};

/**
 * Characters of an attachment to which subscriptions may be added. The platform takes 16,000 of them (all are ASCII by the schemas of
 * the frames); the rest is left for 32 subscriptions' numbers to grow.
 */
const ATTACHMENT_CHARACTERS = 15_000;

/** A socket that has just connected. */
export function newSession(now: Millis): Session {
  return { version: 1, connectedAt: now, badFrames: 0, subscriptions: [] };
}

/** The attachment of a session. A persisted form: a change needs another `version`. */
export function encodeSession(session: Session): string {
  return JSON.stringify(session);
}

/** Reads an attachment; null when another version of this code wrote it. */
export function decodeSession(attachment: unknown): Session | null {
  if (typeof attachment !== "string") return null;
  const session = JSON.parse(attachment) as Session;
  return session.version === 1 ? session : null;
}

/** True when the socket can have one more subscription, by number and by what its attachment holds. */
export function hasRoomFor(session: Session, subscription: Subscription): boolean {
  const { subscriptions } = session;
  if (subscriptions.length >= LIMITS.subscriptions) return false;
  return encodeSession({ ...session, subscriptions: [...subscriptions, subscription] }).length <= ATTACHMENT_CHARACTERS;
}

/** The session with a subscription moved on; null takes it out. */
export function place(session: Session, id: string, next: Subscription | null): Session {
  const subscriptions = session.subscriptions.flatMap((one) => (one.id !== id ? [one] : next === null ? [] : [next]));
  return { ...session, subscriptions };
}

/** True when the subscription wants the event. `types` and `jobs` must both agree. */
export function wants({ types, jobs }: Pick<EventsSubscription, "types" | "jobs">, event: Event): boolean {
  const typed =
    types === null ||
    types.some((type) => type === event.type || (type.endsWith(".*") && event.type.startsWith(type.slice(0, -1))));
  return (
    typed &&
    (jobs === null ||
      jobs.some((job) => event.subject === `jobs/${job}` || event.data.job?.id === job || event.data.run?.job === job))
  );
}

/** Equal for subscriptions that want the same events, so that their frames are made once. */
export function filterKey({ types, jobs }: Pick<EventsSubscription, "types" | "jobs">): string {
  return types === null && jobs === null ? "" : JSON.stringify([types, jobs]);
}
