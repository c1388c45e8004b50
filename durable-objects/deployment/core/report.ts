import { LIMITS, refuse, type Derivation, type Phase, type Refusal, type RunnerEvent } from "@plumule/protocol";
import { acknowledge, type Leased, type LeaseProof, provenLease } from "./lease.ts";
import { isPlanOpen, type Job, leadRun, liveRuns, type Moment, type Run, type State } from "./model.ts";
import { isReplicated } from "./replicas.ts";
import { withRun } from "./run-records.ts";
import { type Decided, Work } from "./work.ts";

/** Progress of one run is told at most this often; newer progress replaces what was not told yet. */
export const PROGRESS_MS = 300;

/** A batch of derivation changes as it is kept: whole, at its place in the run's batches, and folded when it is read. */
export type DerivationBatch = { epoch: number; offset: number; text: string };

/** What a report came to: the number that counts now, and what is to be kept of it. */
export type Reported = { number: number; batch: DerivationBatch | null };

/** A runner tells what happens inside its run. A batch whose number was applied already changes nothing. */
export function report(
  state: State,
  input: LeaseProof & { number: number; events: readonly RunnerEvent[] },
  moment: Moment,
): Decided<Reported> | Refusal {
  const work = new Work(state, moment);
  const proven = provenLease(work.jobs, input);
  if ("refused" in proven) return proven;
  if (input.number <= proven.run.reportNumber) return work.done({ number: proven.run.reportNumber, batch: null });
  const wrong = input.events.findIndex(
    (event) => event.type === "phase" && (event.phase === "queued" || event.phase === "assigned"),
  );
  if (wrong >= 0)
    return refuse("invalid-body", "Queued and assigned are the broker's phases.", {
      errors: [{ pointer: `/events/${wrong}/phase`, detail: "not a phase of a run" }],
    });
  if (input.events.some((event) => event.type === "phase" && event.phase === "applying")) {
    const fault = applyingFault(proven.job);
    if (fault !== null) return fault;
  }
  const leased = acknowledge(work, proven);
  const applied = apply(work, leased, input);
  if ("refused" in applied) return applied;
  const { batch, phase, derivations } = applied;
  let { job } = applied;
  if (phase) work.tell("job.phase", job, job.phase === null ? {} : { phase: job.phase });
  tellDerivations(work, job, derivations);
  if (applied.run.progressUntold && work.now - applied.run.progressAt >= PROGRESS_MS)
    job = tellProgress(work, job, applied.run);
  return work.done({ number: input.number, batch });
}

/**
 * Why a run may not begin to apply, or null. It begins only after its word for it was taken: so a job that is stopped first never does, however
 * late its runner hears of that, and none does whose plan nobody has approved.
 */
function applyingFault(job: Job): Refusal | null {
  if (job.state === "cancelling")
    return refuse("wrong-state", `Job ${job.id} is being stopped, and may not begin to apply.`);
  return isPlanOpen(job)
    ? refuse("wrong-state", `The plan of job ${job.id} has to be approved before it applies.`)
    : null;
}

/** Tells progress that came too soon after the last. Changes nothing when there is none. */
export function flushProgress(state: State, moment: Moment): Decided<null> {
  const work = new Work(state, moment);
  for (const job of work.jobs) {
    const run = liveRuns(job).find(({ progressUntold }) => progressUntold);
    if (run !== undefined) tellProgress(work, job, run);
  }
  return work.done(null);
}

/** Characters of derivations that one event carries: an event has to fit a row, and a socket's buffer. */
const EVENT_CHARACTERS = 128 * 1024;

/** Tells changed derivations, in as many events as they need. */
export function tellDerivations(work: Work, job: Job, derivations: readonly Derivation[]): void {
  const groups: Derivation[][] = [];
  let room = 0;
  for (const one of derivations) {
    const characters = JSON.stringify(one).length;
    if (characters > room) {
      groups.push([]);
      room = EVENT_CHARACTERS;
    }
    room -= characters;
    groups.at(-1)?.push(one);
  }
  for (const group of groups) work.tell("derivation.changed", job, { derivations: group });
}

function tellProgress(work: Work, job: Job, run: Run): Job {
  const told = work.put(withRun(job, { ...run, progressAt: work.now, progressUntold: false }));
  work.tell("job.progress", told, told.progress === null ? {} : { progress: told.progress });
  return told;
}

/** What the events of one batch change. */
export type Applied = Leased & { batch: DerivationBatch | null; derivations: Derivation[]; phase: boolean };

/** Applies a batch to its job and run without telling it. Refuses what would keep more derivations than the limit. */
export function apply(
  work: Work,
  { job, run }: Leased,
  { number, events }: { number: number; events: readonly RunnerEvent[] },
): Applied | Refusal {
  // Of several replicas one is shown; the others would make the same things start over and over.
  const isLead = leadRun(job)?.id === run.id;
  let phase: Phase | null = run.phase;
  let { progress } = job;
  const changes: Change[] = [];
  for (const event of events) {
    switch (event.type) {
      case "phase":
        // A job of several replicas never applies: its results are compared. How an effect ended is not known before the result, so a run that has begun to apply is treated as applying until then.
        if (phase !== "applying" && !(isReplicated(job) && event.phase === "applying")) phase = event.phase;
        break;
      case "progress":
        if (isLead) progress = event.progress;
        break;
      case "plan":
        changes.push({ derivations: event.derivations, edges: event.edges });
        break;
      case "state":
        work.lane = { ...work.lane, stateKeeper: run.runner };
        break;
      case "derivations":
        changes.push({ derivations: event.derivations, edges: [] });
        break;
    }
  }
  const text = changes.length === 0 ? "" : JSON.stringify(changes);
  const offset = run.derivationCharacters;
  if (offset + text.length > LIMITS.derivationCharacters)
    return refuse(
      "payload-too-large",
      `The derivations of one run may have ${LIMITS.derivationCharacters} characters.`,
    );
  const next: Run = {
    ...run,
    phase,
    reportNumber: number,
    reportedAt: work.now,
    derivationCharacters: offset + text.length,
    progressUntold: run.progressUntold || progress !== job.progress,
  };
  const changed = work.put(withRun({ ...job, phase: isLead ? phase : job.phase, progress }, next));
  return {
    job: changed,
    run: next,
    batch: text === "" ? null : { epoch: run.epoch, offset, text },
    derivations: isLead ? changes.flatMap((change) => change.derivations) : [],
    phase: isLead && phase !== run.phase,
  };
}

type Change = { derivations: Derivation[]; edges: [string, string][] };

/** The graph of a run: the newest word about each derivation, and each edge once, within the limits of what is kept. */
export function foldDerivations(batches: Iterable<string>): { nodes: Derivation[]; edges: [string, string][] } {
  const nodes = new Map<string, Derivation>();
  const edges = new Map<string, [string, string]>();
  for (const batch of batches) {
    for (const change of JSON.parse(batch) as Change[]) {
      for (const one of change.derivations)
        if (nodes.has(one.drv) || nodes.size < LIMITS.derivations)
          nodes.set(one.drv, { ...nodes.get(one.drv), ...one });
      for (const edge of change.edges) if (edges.size < LIMITS.derivationEdges) edges.set(edge.join(" "), edge);
    }
  }
  return { nodes: [...nodes.values()], edges: [...edges.values()] };
}
