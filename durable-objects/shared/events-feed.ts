import { LIMITS, type ClientFrame, type Event } from "@plumule/protocol";
import { cursorAt, followCursor } from "./cursor.ts";
import type { EventLog } from "./event-log.ts";
import { encodeEvents, encodeFrame, type FeedDeps, type FeedStep } from "./feed.ts";
import type { EventsSubscription } from "./subscription.ts";

/** Opens a subscription to events: after its cursor, or with a snapshot when it has none or it cannot be followed. */
export function openEvents(frame: Extract<ClientFrame, { op: "subscribe" }>, log: EventLog): EventsSubscription {
  const from = frame.since === undefined ? null : followCursor(frame.since, log);
  const follows = from !== null && "after" in from;
  const sequence = follows ? from.after : 0;
  return {
    kind: "events",
    id: frame.id,
    phase: follows ? "replay" : "snapshot",
    lost: from !== null && "lost" in from ? from.lost : null,
    sequence,
    told: sequence,
    replayed: 0,
    types: frame.types ?? null,
    jobs: frame.jobs ?? null,
  };
}

/**
 * Sends what comes next: the snapshot, or a page of the log with the bookmark behind the last one. Starts over with a `reset` when the log
 * has forgotten the next event. A page has at most `room` characters, but always a row of the log.
 */
export function stepEvents(
  subscription: EventsSubscription,
  deps: FeedDeps,
  room: number,
): FeedStep<EventsSubscription> {
  const { log } = deps;
  if (subscription.phase === "snapshot") return startOver(subscription, deps);
  if (subscription.sequence < log.oldest() - 1) return startOver({ ...subscription, lost: "cursor-expired" }, deps);
  const { events, more } = log.page(subscription.sequence, LIMITS.eventsPage, room);
  const wanted = events.filter((event) => wants(subscription, event));
  const sequence = Number(events.at(-1)?.sequence ?? subscription.sequence);
  const { id, phase } = subscription;
  const replayed = subscription.replayed + (phase === "replay" ? wanted.length : 0);
  const tells = mustTell(subscription, sequence, wanted.length);
  const arrives = phase === "replay" && !more;
  const cursor = cursorAt(log, sequence);
  const frames = tells ? [encodeEvents(id, cursor, JSON.stringify(wanted))] : [];
  if (arrives) frames.push(encodeFrame({ op: "live", id, cursor, recovered: subscription.lost === null, replayed }));
  const told = tells || arrives ? sequence : subscription.told;
  return { frames, next: { ...subscription, phase: arrives ? "live" : phase, sequence, told, replayed }, more };
}

function startOver(subscription: EventsSubscription, { log, snapshot }: FeedDeps): FeedStep<EventsSubscription> {
  const { id, lost } = subscription;
  const head = log.head();
  const cursor = cursorAt(log, head);
  const frames = lost === null ? [] : [encodeFrame({ op: "reset", id, reason: lost })];
  frames.push(encodeFrame({ op: "snapshot", id, cursor, state: snapshot() }));
  frames.push(encodeFrame({ op: "live", id, cursor, recovered: false, replayed: 0 }));
  return { frames, next: { ...subscription, phase: "live", sequence: head, told: head }, more: false };
}

/**
 * True when a subscription is owed a frame for events up to `sequence`: some of them are wanted, or so many were left out that its cursor
 * would fall more than a page behind and might expire.
 */
export function mustTell(subscription: EventsSubscription, sequence: number, wantedCount: number): boolean {
  return wantedCount > 0 || sequence - subscription.told >= LIMITS.eventsPage;
}

/** True when an event that was just committed is the one that the subscription expects; else it is served from the log. */
export function expects(subscription: EventsSubscription, first: Event): boolean {
  return subscription.phase === "live" && subscription.sequence + 1 === Number(first.sequence);
}

/** True when the subscription wants the event. `types` and `jobs` must both agree. */
export function wants({ types, jobs }: Pick<EventsSubscription, "types" | "jobs">, event: Event): boolean {
  const family = event.type.slice(0, event.type.indexOf(".") + 1);
  if (types !== null && !types.some((type) => type === event.type || type === `${family}*`)) return false;
  const { job, run } = event.data;
  return jobs === null || jobs.some((id) => event.subject === `jobs/${id}` || job?.id === id || run?.job === id);
}

/** The events that each filter lets through, as JSON, made once per filter however many subscriptions share it. */
export function filterOnce(
  events: readonly Event[],
): (subscription: EventsSubscription) => { count: number; json: string } {
  const made = new Map<string, { count: number; json: string }>();
  return (subscription) => {
    const key = JSON.stringify([subscription.types, subscription.jobs]);
    const known = made.get(key);
    if (known !== undefined) return known;
    const wanted = events.filter((event) => wants(subscription, event));
    const batch = { count: wanted.length, json: JSON.stringify(wanted) };
    made.set(key, batch);
    return batch;
  };
}
