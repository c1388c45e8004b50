import { type Command, isRefusal, LIMITS, type RunnerEvent } from "@plumule/protocol";
import type { LeaseProof } from "#durable-objects/deployment/core/lease.ts";
import { isPlanOpen, liveRuns } from "#durable-objects/deployment/core/model.ts";
import { always, commit } from "./always.ts";
import type { Core } from "./core.ts";
import { append, sealedLog } from "./log.ts";
import { PoolStep } from "./pool.ts";
import { ballotOf, saidWith } from "./quorum.ts";
import type { Scope } from "./scopes.ts";
import { type Step, withPool } from "./step.ts";
import { stepsOf } from "./task-file.ts";
import { jobIndex, type Late, type Lease, moment, NOW, type Result, type World } from "./world.ts";

const AT = new Date(NOW).toISOString();
const PROGRESS = { total: 1, done: 1, running: 0, failed: 0, cached: 0, queued: 0 };

/** An event as it comes off the wire: no two are the same object. */
function eventOf(event: Report["event"]): RunnerEvent {
  return event === "applying"
    ? { type: "phase", phase: "applying", at: AT }
    : { type: "progress", progress: { ...PROGRESS } };
}

function isLive({ state }: World, proof: LeaseProof): boolean {
  return state.jobs.some((job) =>
    liveRuns(job).some(
      (run) => run.epoch === proof.epoch && run.id === proof.run && run.leaseSha256 === proof.leaseSha256,
    ),
  );
}

/** A heartbeat reaches the broker: it keeps the lease and learns of a command, or it is refused. */
export function beat(
  core: Core,
  world: World,
  lease: Lease,
): { world: World; answer: { command: Command | null } | null } {
  const live = isLive(world, lease);
  const change = core.heartbeat(world.state, { ...lease, isolation: null }, moment());
  if (isRefusal(change)) return { world, answer: null };
  always(live, "P5 a stale heartbeat changes nothing", `epoch ${lease.epoch}`);
  const held = change.state.jobs.flatMap(liveRuns).find(({ epoch }) => epoch === lease.epoch);
  const job = world.state.jobs.find(({ id }) => id === lease.job);
  const until = job?.ending?.until ?? job?.quorum?.conclusion?.until ?? NOW + LIMITS.leaseMs;
  always((held?.leaseUntil ?? 0) <= until, "P15 a heartbeat cannot outlive the end of its job", lease.run);
  const command = change.state.jobs.find(({ id }) => id === lease.job)?.command ?? null;
  return { world: commit(core, world, change), answer: { command } };
}

/** What a run says of itself, in a numbered batch. */
export type Report = { lease: Lease; number: number; event: "applying" | "progress" };

/** A run says how far it is, or that it begins to apply; false when the broker refuses, and then it does not begin. */
export function report(core: Core, world: World, { lease, number, event }: Report): { world: World; taken: boolean } {
  const live = isLive(world, lease);
  const known = world.state.jobs.flatMap(liveRuns).find(({ id }) => id === lease.run)?.reportNumber ?? 0;
  const change = core.report(world.state, { ...lease, number, events: [eventOf(event)] }, moment());
  if (isRefusal(change)) return { world, taken: false };
  always(live, "P5 a stale report changes nothing", `epoch ${lease.epoch}`);
  const isNew = number > known;
  always(isNew || change.jobs.length + change.events.length === 0, "P8 a repeated report changes nothing", `${number}`);
  const after = commit(core, world, change);
  const index = jobIndex(lease.job);
  const begins = isNew && event === "applying";
  const job = world.state.jobs.find(({ id }) => id === lease.job);
  if (begins && job !== undefined) {
    always(job.state !== "cancelling", "effect: one that is stopped before it began never begins", job.id);
    always(!isPlanOpen(job), "effect: one with a plan begins when that was approved", job.id);
  }
  const told = after.told.map((one, at) => (begins && at === index ? { ...one, unseen: true } : one));
  return { world: begins ? { ...after, told } : after, taken: true };
}

/** A run says that it is in a phase that is not its own to say. */
export function misreport(core: Core, scope: Scope, world: World, lease: Lease): World {
  const events = [{ type: "phase" as const, phase: "queued" as const, at: AT }];
  const change = core.report(world.state, { ...lease, number: 9, events }, moment());
  if (!isRefusal(change)) return commit(core, world, change);
  scope.seen.add(`refused ${change.refused}`);
  return world;
}

/** A result reaches the broker. */
export function takeResult(core: Core, scope: Scope, world: World, result: Result): World {
  const { lease, outcome, reason, applied, batch } = result;
  const live = isLive(world, lease);
  const log = sealedLog(world, result);
  const rest = { exitCode: null, isolation: null, survivorsKilled: 0, outputs: [], statementCount: 1, log };
  const signing = { type: "phase" as const, phase: "signing" as const, at: AT };
  const { takenCount, pending } = batch;
  const last = [...(pending === null ? [] : [eventOf(pending)]), ...(applied ? [signing] : [])];
  const events = last.length > 0 ? { number: takenCount + 1, events: last } : null;
  const change = core.finish(
    world.state,
    {
      ...lease,
      ...rest,
      events,
      outcome,
      reason,
      ballot: ballotOf(world, result),
      plan: planOf(world, result),
      steps: stepsOf(world, result),
    },
    moment(),
  );
  if (isRefusal(change)) {
    scope.seen.add("a late result").add(`refused ${change.refused}`);
    return world;
  }
  if (
    world.liar !== null &&
    change.events.some(({ type, data }) => type === "job.succeeded" && data.job?.quorum?.agreeing === 2)
  )
    scope.seen.add("a vote outvoted");
  always(live, "P5 a stale result changes nothing", `epoch ${lease.epoch}`);
  const index = jobIndex(lease.job);
  const isSeen = outcome !== "refused" && outcome !== "unknown";
  const told = world.told.map((one, at) => (at === index && isSeen ? { ...one, unseen: false } : one));
  return commit(core, { ...world, told, said: saidWith(world, result) }, change);
}

/** The plan that a result brings, if that was its job. */
function planOf({ state }: World, { lease, outcome }: Result): string | null {
  const job = state.jobs.find(({ id }) => id === lease.job);
  return job !== undefined && isPlanOpen(job) && outcome === "skipped" ? "a plan" : null;
}

/** A late copy arrives, or is lost. Nobody waits for its answer. */
export function arriving(core: Core, world: World, late: Late): Step[] {
  const gone: World = { ...world, late: world.late.filter((one) => one !== late) };
  const quiet = { seen: new Set<string>() } as Scope;
  const arrive = (): World => {
    switch (late.kind) {
      case "heartbeat":
        return beat(core, gone, late.lease).world;
      case "log":
        return append(gone, late).world;
      case "report":
        return report(core, gone, late).world;
      case "result":
        return takeResult(core, quiet, gone, late.result);
      case "put":
      case "drop": {
        const pool = new PoolStep(gone.pool);
        if (late.kind === "put") pool.put(late.ticket);
        else pool.drop(core, late.job, late.number);
        return withPool(gone, pool);
      }
    }
  };
  return [
    { label: `a late ${late.kind} arrives`, take: arrive },
    { label: `a late ${late.kind} is lost`, take: () => gone },
  ];
}
