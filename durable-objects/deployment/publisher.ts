import { LIMITS, type Event, type JobId, type JobView, type Millis } from "@plumule/protocol";
import type { FencedWrite, Published, PublishCall } from "../namespace/calls.ts";
import type { EventLog } from "../shared/event-log.ts";
import { within } from "../shared/within.ts";
import { backoffMs } from "./core/model.ts";
import { withUnsigned } from "./core/summaries.ts";
import { deploymentView } from "./core/views.ts";
import type { Fences } from "./fences.ts";
import { BROKER, isPublished, type Ledger } from "./ledger.ts";

/** How long events are collected before they are told, so that a short job costs one or two calls. */
const COLLECT_MS = 250;
/** A namespace that does not answer within this is told again later, ms. */
const PUBLISH_MS = 10_000;
/** When the alarm tells what a broken instance did not: while the namespace still waits for a young job that somebody asks for. */
const HEAL_MS = 1_500;

/** What publishing needs of the object. */
export type PublisherDeps = {
  log: EventLog;
  fences: Fences;
  waitUntil: (work: Promise<unknown>) => void;
  now: () => Millis;
  ledger: () => Ledger;
  publish: (call: PublishCall) => Promise<Published>;
};

/** Tells a namespace what its deployment did. The event log is the outbox, the cursor in the lane is where it stands. */
export type Publisher = {
  /** Call it after a commit that appended events, and when the object comes into memory. */
  schedule(): void;
  /** Call it from the alarm: tells what is overdue. */
  heal(): void;
  /** Call it for a write with a lease that was taken away: the namespace is told for its audit log. */
  fenced(write: Omit<FencedWrite, "id">): void;
  /** When an alarm has to see to it, or null. `more`: events to tell are being committed just now. */
  dueAt(more: boolean): Millis | null;
};

/**
 * Tells events in order and in batches. A batch
 * that is sent twice carries the same range of sequences, and the namespace applies a range once.
 */
export function createPublisher({ log, fences, waitUntil, now, ledger, publish }: PublisherDeps): Publisher {
  let running = false;
  let failureCount = 0;
  let dueAt: Millis | null = null;
  /** Up to here there is nothing to tell; it may be ahead of what is stored. */
  let scanned = 0;

  const published = (): number => ledger().state().lane.published;
  const told = (through: number, unsigned: readonly JobId[]): void => {
    const { lane, jobs } = ledger().state();
    const owed = withUnsigned(lane, unsigned, now());
    const state = { lane: { ...lane, published: through, unsigned: owed }, jobs };
    ledger().commit({ state, jobs: [], events: [], answer: null }, ledger().moment(BROKER));
  };

  const tellNext = async (): Promise<boolean> => {
    const after = Math.max(published(), scanned);
    const page = log.page(after, LIMITS.eventsPage);
    const last = page.events.at(-1);
    const fenced = fences.waiting();
    if (last === undefined && fenced.length === 0) return false;
    const through = last === undefined ? after : Number(last.sequence);
    const events = page.events.filter(({ type }) => isPublished(type));
    if (events.length > 0 || fenced.length > 0) {
      const state = ledger().state();
      const removed = state.lane.removedAt !== null;
      const jobs = newestJobs(events);
      const call = { deployment: deploymentView(state), removed, jobs, events, after: published(), through };
      const { judge = [] } = await within(PUBLISH_MS, publish(fenced.length === 0 ? call : { ...call, fenced }));
      fences.told(fenced.length);
      if (events.length > 0) told(through, judge);
    }
    scanned = through;
    return page.more;
  };

  const run = async (): Promise<void> => {
    try {
      await scheduler.wait(COLLECT_MS);
      while (await tellNext());
      failureCount = 0;
      dueAt = null;
    } catch {
      failureCount += 1;
      dueAt = now() + backoffMs(failureCount);
    } finally {
      running = false;
    }
    // What was committed while the last page was on its way.
    if (failureCount === 0 && (fences.waiting().length > 0 || log.head() > Math.max(published(), scanned))) schedule();
  };

  const schedule = (): void => {
    if (running) return;
    running = true;
    // A try that is under way has its own deadline; if it dies with this instance, the alarm comes to it.
    dueAt = now() + HEAL_MS;
    waitUntil(run());
  };

  const heal = (): void => {
    if (dueAt === null || dueAt > now()) return;
    // A try that is still under way is looked after later: an alarm for now would fire again and again.
    if (running) dueAt = now() + PUBLISH_MS;
    else schedule();
  };

  const fenced = (write: Omit<FencedWrite, "id">): void => {
    if (fences.note(write)) schedule();
  };

  return { schedule, heal, fenced, dueAt: (more) => dueAt ?? (more ? now() + HEAL_MS : null) };
}

/** The newest view of each job that the events are about. */
function newestJobs(events: readonly Event[]): JobView[] {
  const jobs = new Map<string, JobView>();
  for (const { data } of events) if (data.job !== undefined) jobs.set(data.job.id, data.job);
  return [...jobs.values()];
}
