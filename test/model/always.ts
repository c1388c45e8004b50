import { isFinalJobState, type JobState } from "@plumule/protocol";
import { isEdge, EDGES } from "#durable-objects/deployment/core/edges.ts";
import { brokenRule } from "#durable-objects/deployment/core/invariants.ts";
import { isOccupying, type Job, liveRun, type State } from "#durable-objects/deployment/core/model.ts";
import { dispatches } from "#durable-objects/deployment/core/tickets.ts";
import { sequencesAfter } from "#durable-objects/shared/event-log.ts";
import type { Change } from "#durable-objects/deployment/core/work.ts";
import type { Core } from "./core.ts";
import { jobId, jobIndex, moment, NOW, rebase, type Told, type World } from "./world.ts";

/** A property that does not hold, with what was seen. */
export class Violation extends Error {
  readonly property: string;
  constructor(property: string, seen: string) {
    super(`${property}: ${seen}`);
    this.property = property;
  }
}

/** Throws unless a property holds. */
export function always(holds: boolean, property: string, seen: string): void {
  if (!holds) throw new Violation(property, seen);
}

const NOTHING_TOLD: Told = { state: null, finalCount: 0, stopped: false, unseen: false };
const JOB_EVENTS = new Set(["phase", "progress", "waiting"]);

/**
 * Commits a decision: what it tells is checked against the past, what it leaves behind against the rules. `remembered`: the head of the event
 * log when the call began that decided.
 */
export function commit(core: Core, world: World, change: Change, remembered = world.head): World {
  if (change.state.lane === world.state.lane && change.jobs.length === 0 && change.events.length === 0) return world;
  const [rule = "", ...seen] = brokenRule(world.state, change, NOW)?.split(": ") ?? [];
  always(rule === "", rule, `${seen.join(": ")} (refused before its commit)`);
  const told = [...world.told];
  let { grantedEpoch } = world;
  for (const { type, data } of change.events) {
    if (!type.startsWith("job.") || data.job === undefined || JOB_EVENTS.has(type.slice(4))) continue;
    const index = jobIndex(data.job.id);
    const state = type.slice(4) as JobState;
    told[index] = tell(told[index] ?? NOTHING_TOLD, state, data.job.id);
    if (state !== "assigned") continue;
    const run = change.state.jobs.find(({ id }) => id === data.job?.id)?.runs.at(-1);
    always(run !== undefined && run.epoch > grantedEpoch, "P5 every grant has a higher epoch", `${run?.epoch}`);
    grantedEpoch = run?.epoch ?? grantedEpoch;
  }
  checkState(core, change.state);
  const sequences = sequencesAfter(core.storage.head(world.head, remembered), change.events.length);
  sequences.forEach((sequence, index) =>
    always(Number(sequence) === world.head + index + 1, "P3 sequences have no gap and no repeat", sequence),
  );
  const head = world.head + sequences.length;
  return { ...world, state: rebase(change.state), before: world.state, told, grantedEpoch, head };
}

function tell(told: Told, state: JobState, job: string): Told {
  const path = EDGES.some(({ cause }) => isEdge(told.state, cause, state));
  always(path, "P6 events follow the state machine, final states absorb", `${job}: ${told.state} -> ${state}`);
  always(!(told.stopped && state === "succeeded"), "P4 nothing that was stopped succeeds", job);
  const finalCount = told.finalCount + Number(isFinalJobState(state));
  always(finalCount <= 1, "P6 one final event per job", job);
  always(!(told.unseen && state === "assigned"), "effect: one whose end nobody saw is not begun again", job);
  const stopped = told.stopped || state === "cancelling" || state === "superseded" || state === "cancelled";
  return { state, finalCount, stopped, unseen: told.unseen };
}

function checkState(core: Core, state: State): void {
  always(state.jobs.filter(isOccupying).length <= 1, "P1 one job has the lane", "two are assigned or running");
  for (const job of state.jobs) checkJob(core, state, job);
  const owed = new Set(core.dispatches(state).map((one) => (one.kind === "put" ? one.ticket.job : `drop ${one.job}`)));
  for (const job of state.jobs)
    always(job.ticket?.placed !== false || owed.has(job.id), "P13 an unplaced ticket is in the outbox", job.id);
  for (const drop of dispatches(state))
    if (drop.kind === "drop") always(owed.has(`drop ${drop.job}`), "P13 a drop is in the outbox", drop.job);
}

function checkJob(core: Core, state: State, job: Job): void {
  const ended = job.runs.slice(0, isOccupying(job) ? -1 : undefined).every(({ finishedAt }) => finishedAt !== null);
  always(ended, "P1 only the newest run of a job is live", job.id);
  const kinds = new Set(
    core.timers(state, moment().outputs).flatMap((timer) => (timer.job === job.id ? [timer.kind] : [])),
  );
  const wanted = isOccupying(job)
    ? (["lease", ...(job.state === "running" ? (["run", "silence"] as const) : [])] as const)
    : (["queue", ...(job.ready === null ? [] : (["ready"] as const))] as const);
  for (const kind of wanted) always(kinds.has(kind), "P13 a live job has its timers", `${job.state} without ${kind}`);
  const until = job.ending?.until ?? Infinity;
  always(
    job.state !== "cancelling" || (job.runs.at(-1)?.leaseUntil ?? 0) <= Math.max(until, NOW + 1),
    "P15 a lease does not outlive the end of its job",
    job.id,
  );
}

/** What holds between the parts: who works, and what the pool knows. */
export function checkWorld(world: World): void {
  const live = new Map(world.state.jobs.map((job) => [job.id, job]));
  world.told.forEach((one, index) => {
    const job = live.get(jobId(index));
    if (job === undefined)
      always(one.finalCount === 1, "P2 a job that was accepted is live or told its end", `job ${index}`);
    else always(one.state === job.state, "P6 every change of state is told", `${one.state}, is ${job.state}`);
  });
  checkRunners(world);
  for (const { id, ticket } of world.state.jobs) {
    if (ticket?.placed !== true) continue;
    const stored = world.pool.tickets.some(({ job, number }) => job === id && number === ticket.number);
    always(stored, "P13 a ticket that counts as placed is in its pool", `job ${jobIndex(id)}`);
  }
}

/** Who works, and what their machines know of it. */
function checkRunners({ runners, state }: World): void {
  const held = new Set(state.jobs.flatMap((job) => liveRun(job)?.epoch ?? []));
  let workingCount = 0;
  for (const { id, disk, memory, processes, leases } of runners) {
    for (const { runner } of leases)
      always(runner === id, "lease: an assignment reaches the runner that it was granted to", id);
    for (const { run, pid, state: doing, ordered } of processes) {
      if (doing !== "working") continue;
      workingCount += 1;
      const epoch = leases.find((lease) => lease.run === run)?.epoch ?? 0;
      always(held.has(epoch), "P1 who works holds the lease", `${id} works at epoch ${epoch}`);
      const record = disk.runs.find((one) => one.run === run && one.state === "running");
      always(record?.supervisor?.pid === pid, "P15 whoever comes after a crash finds what works", `${id}: ${run}`);
      const live = memory?.runs.find((one) => one.run === run);
      always(live === undefined || live.seenCommand === 0 || ordered, "P15 what was told to stop is stopping", run);
    }
  }
  always(workingCount <= 1, "P1 one runner works for a deployment", `${workingCount} work`);
}
