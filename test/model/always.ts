import { isFinalJobState, type JobId, jobOfRun, type JobState } from "@plumule/protocol";
import { isEdge, EDGES } from "#durable-objects/deployment/core/edges.ts";
import { brokenRule } from "#durable-objects/deployment/core/invariants.ts";
import { isOccupying, type Job, liveRuns, type State } from "#durable-objects/deployment/core/model.ts";
import { isStopping, openCount } from "#durable-objects/deployment/core/replicas.ts";
import { dispatches } from "#durable-objects/deployment/core/tickets.ts";
import type { Timer } from "#durable-objects/deployment/core/timers.ts";
import { sequencesAfter } from "#durable-objects/shared/event-log.ts";
import type { Change } from "#durable-objects/deployment/core/work.ts";
import type { Core } from "./core.ts";
import { groupsOf } from "./quorum.ts";
import { unmetNeed } from "./task-file.ts";
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
const JOB_EVENTS = new Set(["phase", "progress", "waiting", "verdict"]);

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
    const unmet = state === "assigned" && data.job.step !== undefined ? unmetNeed(told, data.job.step.name) : null;
    always(unmet === null, "steps: one begins when what it needs has ended well", unmet ?? "");
  }
  for (const job of change.jobs) checkVerdict(world, job);
  for (const { epoch } of change.jobs.flatMap(({ runs }) => runs.filter(({ state }) => state === "assigned"))) {
    const known = world.state.jobs.some(({ runs }) => runs.some((run) => run.epoch === epoch));
    always(known || epoch > grantedEpoch, "P5 every grant has a higher epoch", `${epoch}`);
    grantedEpoch = Math.max(grantedEpoch, epoch);
  }
  checkState(core, change.state);
  checkProgress(world.state, change);
  const sequences = sequencesAfter(core.storage.head(world.head, remembered), change.events.length);
  sequences.forEach((sequence, index) =>
    always(Number(sequence) === world.head + index + 1, "P3 sequences have no gap and no repeat", sequence),
  );
  const head = world.head + sequences.length;
  const state = rebase(change.state);
  const live = new Set(state.jobs.flatMap((job) => liveRuns(job).map(({ epoch }) => epoch)));
  return {
    ...world,
    state,
    before: world.state,
    told,
    said: world.said.filter(({ job }) => state.jobs.some(({ id }) => id === job)),
    logs: world.logs.filter(({ epoch }) => live.has(epoch)),
    unknown: unknownAfter(world, change),
    grantedEpoch,
    head,
  };
}

/** What is not owed any more was told, or its run is over. */
function checkProgress(before: State, { state, events }: Change): void {
  const owed = ({ jobs }: State): string[] =>
    jobs.flatMap(({ runs }) => runs.flatMap((run) => (run.progressUntold && run.finishedAt === null ? [run.id] : [])));
  const live = new Set(state.jobs.flatMap((job) => liveRuns(job).map(({ id }) => id)));
  for (const run of owed(before)) {
    if (!live.has(run) || owed(state).includes(run)) continue;
    const isTold = events.some(({ type, data }) => type === "job.progress" && data.job?.id === jobOfRun(run));
    always(isTold, "progress: what is owed is told", run);
  }
}

function unknownAfter({ unknown }: World, { jobs }: Change): World["unknown"] {
  if (unknown === null) return null;
  const known = new Map([...unknown, ...jobs].map((job) => [job.id, job]));
  return [...known.values()].filter(({ state }) => state === "unknown");
}

function tell(told: Told, state: JobState, job: string): Told {
  const path = EDGES.some(({ cause }) => isEdge(told.state, cause, state));
  always(path, "P6 events follow the state machine, final states absorb", `${job}: ${told.state} -> ${state}`);
  // What became of an effect that nobody saw is a person's word, about what was final already.
  if (told.state === "unknown") return { ...told, state };
  always(!(told.stopped && state === "succeeded"), "P4 nothing that was stopped succeeds", job);
  const finalCount = told.finalCount + Number(isFinalJobState(state));
  always(finalCount <= 1, "P6 one final event per job", job);
  always(!(told.unseen && state === "assigned"), "effect: one whose end nobody saw is not begun again", job);
  const stopped = told.stopped || state === "cancelling" || state === "superseded" || state === "cancelled";
  return { state, finalCount, stopped, unseen: told.unseen };
}

/** What a quorum comes to: green when enough runners said the same and no others as many, and nothing else unless somebody stopped it. */
function checkVerdict({ said, told }: World, job: Job): void {
  const { quorum } = job.brief;
  if (quorum === undefined || !isFinalJobState(job.state)) return;
  const [most = 0, next = 0] = groupsOf(said.filter((one) => one.job === job.id));
  const seen = `${job.state} with ${most} to ${next}`;
  if (job.state === "succeeded") {
    always(most >= quorum.agree, "P10 green needs the agreement of distinct keys", seen);
    always(next < most, "P10 what is divided is not green", seen);
  } else if (job.state === "failed" && told[jobIndex(job.id)]?.stopped !== true)
    always(most < quorum.agree || next === most, "P10 what enough keys agree on is not red", seen);
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
  const most = (job.brief.quorum?.replicas ?? 1) + (job.quorum?.tieBreakCount ?? 0);
  always(liveRuns(job).length <= most, "P1 a job has one lease, or one per replica", `${liveRuns(job).length}`);
  const timers = core.timers(state, moment().outputs).filter((timer) => timer.job === job.id);
  const has = (kind: Timer["kind"], run?: string): boolean =>
    timers.some((timer) => timer.kind === kind && timer.run === run);
  for (const kind of wanted(job)) always(has(kind), "P13 a live job has its timers", `${job.state} without ${kind}`);
  for (const run of liveRuns(job)) {
    const isTimed = run.state === "running" && job.state === "running" && job.quorum?.conclusion == null;
    for (const kind of isTimed ? (["lease", "run", "silence"] as const) : (["lease"] as const))
      always(has(kind, run.id), "P13 a live job has its timers", `${job.state} without ${kind}`);
    const until = job.ending?.until ?? job.quorum?.conclusion?.until ?? Infinity;
    const isBound = !isStopping(job) || run.leaseUntil <= Math.max(until, NOW + 1);
    always(isBound, "P15 a lease does not outlive the end of its job", job.id);
  }
}

function wanted(job: Job): readonly Timer["kind"][] {
  if (isOccupying(job) && openCount(job) === 0) return [];
  return job.ready === null ? ["queue"] : ["queue", "ready"];
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
  const held = new Set(state.jobs.flatMap((job) => liveRuns(job).map(({ epoch }) => epoch)));
  const working = new Map<string, JobId>();
  for (const { id, disk, memory, processes, leases } of runners) {
    for (const { runner } of leases)
      always(runner === id, "lease: an assignment reaches the runner that it was granted to", id);
    for (const { run, pid, state: doing, ordered } of processes) {
      if (doing !== "working") continue;
      const lease = leases.find((one) => one.run === run);
      always(lease !== undefined && held.has(lease.epoch), "P1 who works holds a lease", `${id} works for ${run}`);
      always(!working.has(id), "P1 a runner works once at a time", `${id}`);
      working.set(id, jobOfRun(run));
      const record = disk.runs.find((one) => one.run === run && one.state === "running");
      always(record?.supervisor?.pid === pid, "P15 whoever comes after a crash finds what works", `${id}: ${run}`);
      const live = memory?.runs.find((one) => one.run === run);
      always(live === undefined || live.seenCommand === 0 || ordered, "P15 what was told to stop is stopping", run);
    }
  }
  const jobs = new Set(working.values());
  const quorum = state.jobs.find(({ id }) => jobs.has(id))?.quorum;
  always(jobs.size <= 1, "P1 one job of a deployment is worked on", [...jobs].join(" and "));
  always(working.size <= 1 || quorum !== undefined, "P1 one runner works for a deployment", `${working.size} work`);
}
