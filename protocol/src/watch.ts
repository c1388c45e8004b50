import { formatSequence, type JobId } from "./ids.ts";
import type { Event } from "./events.ts";
import { isFinalJobState, type Derivation, type DeploymentSnapshot, type DeploymentView, type JobView } from "./job.ts";
import { parseCursor } from "./events.ts";
import type { ServerFrame } from "./stream.ts";

/** Where a watcher stands: nothing yet, replaying, caught up, starting over after a reset, or cut off (showing the last known state). */
export type WatchPhase = "connecting" | "replaying" | "live" | "resetting" | "offline";

/**
 * What a watcher of one deployment knows. `received` counts events applied, `duplicates` those that were already
 * applied and changed nothing, `gaps` sequences that never came (always 0 unless the broker broke its promise P7).
 */
export type WatchState = {
  phase: WatchPhase;
  cursor: string | null;
  epoch: number;
  sequence: number;
  deployment: DeploymentView | null;
  jobs: Readonly<Record<JobId, JobView>>;
  derivations: Readonly<Record<JobId, Readonly<Record<string, Derivation>>>>;
  received: number;
  duplicates: number;
  gaps: number;
  resets: number;
  recovered: boolean | null;
};

/** Jobs that a watcher keeps after they are final; older ones can be read over HTTP. */
const FINAL_JOBS_KEPT = 100;

/** A watcher that knows nothing. */
export function initialWatch(): WatchState {
  return {
    phase: "connecting",
    cursor: null,
    epoch: 0,
    sequence: 0,
    deployment: null,
    jobs: {},
    derivations: {},
    received: 0,
    duplicates: 0,
    gaps: 0,
    resets: 0,
    recovered: null,
  };
}

/** Applies one frame of the subscription. Frames of log subscriptions and unknown frames change nothing. */
export function reduceFrame(state: WatchState, frame: ServerFrame): WatchState {
  switch (frame.op) {
    case "snapshot":
      return applySnapshot(state, frame.state as DeploymentSnapshot, frame.cursor);
    case "events": {
      const next = frame.events.reduce(reduceEvent, state);
      const cursor = parseCursor(frame.cursor);
      // A filtered page's cursor may be beyond its last event: what was filtered out was still seen by the broker.
      return {
        ...next,
        cursor: frame.cursor,
        epoch: cursor?.epoch ?? next.epoch,
        sequence: Math.max(next.sequence, cursor?.sequence ?? 0),
        phase: next.phase === "live" ? "live" : "replaying",
      };
    }
    case "live":
      return { ...state, phase: "live", cursor: frame.cursor, recovered: frame.recovered };
    case "reset":
      return {
        ...initialWatch(),
        phase: "resetting",
        received: state.received,
        duplicates: state.duplicates,
        gaps: state.gaps,
        resets: state.resets + 1,
        recovered: false,
      };
    default:
      return state;
  }
}

/** The connection was lost: what is known stays on show, and the cursor is where to resume. */
export function loseConnection(state: WatchState): WatchState {
  return { ...state, phase: "offline" };
}

function applySnapshot(state: WatchState, snapshot: DeploymentSnapshot, cursor: string): WatchState {
  const at = parseCursor(cursor);
  return {
    ...state,
    phase: "replaying",
    cursor,
    epoch: at?.epoch ?? 0,
    sequence: at?.sequence ?? 0,
    deployment: snapshot.deployment,
    jobs: Object.fromEntries(snapshot.jobs.map((job) => [job.id, job])),
    derivations: {},
  };
}

/** Applies one event. An event at or below the known sequence changes nothing; a jump ahead is counted as a gap. */
export function reduceEvent(state: WatchState, event: Event): WatchState {
  if (event.sequence <= formatSequence(state.sequence)) return { ...state, duplicates: state.duplicates + 1 };
  const sequence = Number(event.sequence);
  const { job, deployment, derivations } = event.data;
  return {
    ...state,
    sequence,
    received: state.received + 1,
    gaps: state.gaps + (sequence - state.sequence - 1),
    deployment: deployment ?? state.deployment,
    jobs: job === undefined ? state.jobs : trimJobs({ ...state.jobs, [job.id]: job }),
    derivations:
      job === undefined || derivations === undefined
        ? state.derivations
        : {
            ...state.derivations,
            [job.id]: { ...state.derivations[job.id], ...Object.fromEntries(derivations.map((one) => [one.drv, one])) },
          },
  };
}

function trimJobs(jobs: Record<JobId, JobView>): Record<JobId, JobView> {
  const final = Object.values(jobs).filter((job) => isFinalJobState(job.state));
  if (final.length <= FINAL_JOBS_KEPT) return jobs;
  final.sort((a, b) => (a.id < b.id ? -1 : 1));
  for (const job of final.slice(0, final.length - FINAL_JOBS_KEPT)) delete jobs[job.id];
  return jobs;
}
