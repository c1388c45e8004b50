import { isRefusal, LIMITS, type Outcome, type Reason } from "@plumule/protocol";
import type { LeaseProof } from "#durable-objects/deployment/core/lease.ts";
import { liveRun } from "#durable-objects/deployment/core/model.ts";
import { always, commit } from "./always.ts";
import type { Core } from "./core.ts";
import { PoolStep } from "./pool.ts";
import type { Scope } from "./scopes.ts";
import { jobNamed, named, type Step, withPool } from "./step.ts";
import {
  jobIndex,
  type Late,
  type Lease,
  moment,
  NOW,
  type Result,
  type RunnerModel,
  type RunnerRun,
  type World,
} from "./world.ts";

const RUNNER_STOPPED: Reason = { code: "runner-stopped", detail: "The runner was restarted." };

/** Everything that runners and the network may do next. */
export function runnerSteps(core: Core, scope: Scope, world: World): Step[] {
  return [
    ...world.runners.flatMap((runner) => [
      ...asking(core, world, runner),
      ...(runner.run === null ? [] : working(core, scope, world, runner, runner.run)),
      ...delivering(core, scope, world, runner),
    ]),
    ...world.late.flatMap((late) => arriving(core, world, late)),
  ];
}

function put(world: World, runner: RunnerModel): World {
  return { ...world, runners: world.runners.map((one) => (one.id === runner.id ? runner : one)) };
}

function isLive({ state }: World, proof: LeaseProof): boolean {
  return state.jobs.some((job) => {
    const run = liveRun(job);
    return run?.epoch === proof.epoch && run.id === proof.run && run.leaseSha256 === proof.leaseSha256;
  });
}

/**
 * The long poll and its answer. The assignment and the key under which it came are two writes; a restart between them forgets the key, since
 * the assignment names it, so they are one step here.
 */
function asking(core: Core, world: World, runner: RunnerModel): Step[] {
  const { id, key, reply, run } = runner;
  const name = named(id);
  const steps: Step[] = [];
  const isParked = world.pool.polls.some((poll) => poll.runner === id && poll.key === key);
  if (run === null && !isParked)
    steps.push({
      label: reply === null ? `${name} polls` : `the answer to ${name} is lost and it polls again`,
      take: () => {
        const keyCount = key === null ? runner.keyCount + 1 : runner.keyCount;
        const asked = { ...runner, keyCount, key: key ?? `${id}/${keyCount}`, reply: null };
        const pool = new PoolStep(world.pool);
        pool.poll({ runner: id, key: asked.key });
        return withPool(put(world, asked), pool);
      },
    });
  if (reply === null) return steps;
  const take = (): World => {
    const begun: RunnerRun = {
      lease: reply,
      working: !core.runner.waitsForLease,
      applying: false,
      stopped: false,
      fenced: false,
    };
    return put(world, { ...runner, key: null, reply: null, run: begun });
  };
  steps.push({ label: `${name} takes the assignment of ${jobNamed(reply.job)}`, take });
  return steps;
}

/** A heartbeat reaches the broker; the answer is the command, `none`, or `lost` for a lease that is not this runner's any more. */
function beat(core: Core, world: World, lease: Lease): { world: World; answer: "stop" | "none" | "lost" } {
  const live = isLive(world, lease);
  const change = core.heartbeat(world.state, { ...lease, isolation: null }, moment());
  if (isRefusal(change)) return { world, answer: "lost" };
  always(live, "P5 a stale heartbeat changes nothing", `epoch ${lease.epoch}`);
  const held = change.state.jobs.flatMap((job) => liveRun(job) ?? []).find(({ epoch }) => epoch === lease.epoch);
  const until = world.state.jobs.find(({ id }) => id === lease.job)?.ending?.until ?? NOW + LIMITS.leaseMs;
  always((held?.leaseUntil ?? 0) <= until, "P15 a heartbeat cannot outlive the end of its job", lease.run);
  const command = change.state.jobs.some((job) => job.id === lease.job && job.command !== null);
  return { world: commit(core, world, change), answer: command ? "stop" : "none" };
}

function applies(core: Core, world: World, lease: Lease): World {
  const live = isLive(world, lease);
  const events = [{ type: "phase" as const, phase: "applying" as const, at: new Date(NOW).toISOString() }];
  const change = core.report(world.state, { ...lease, number: 1, events }, moment());
  if (isRefusal(change)) return world;
  always(live, "P5 a stale report changes nothing", `epoch ${lease.epoch}`);
  const after = commit(core, world, change);
  const index = jobIndex(lease.job);
  return { ...after, told: after.told.map((one, at) => (at === index ? { ...one, unseen: true } : one)) };
}

function working(core: Core, scope: Scope, world: World, runner: RunnerModel, run: RunnerRun): Step[] {
  const name = named(runner.id);
  const { lease } = run;
  const steps: Step[] = [];
  const late = (label: string, message: Late): void => {
    if (world.late.length < scope.lateCount)
      steps.push({
        label: `${name}'s ${label} is delayed`,
        take: () => ({ ...world, late: [...world.late, message] }),
      });
  };
  if (!run.fenced) {
    steps.push({
      label: `${name} sends a heartbeat`,
      take: () => {
        const { world: after, answer } = beat(core, world, lease);
        if (answer !== "lost")
          return put(after, { ...runner, run: { ...run, working: true, stopped: run.stopped || answer === "stop" } });
        scope.seen.add(run.working ? "a heartbeat of a lost lease" : "a first heartbeat refused");
        return put(after, { ...runner, run: run.working ? { ...run, fenced: true } : null });
      },
    });
    steps.push({ label: `${name} sends a heartbeat, the answer is lost`, take: () => beat(core, world, lease).world });
    late("heartbeat", { kind: "heartbeat", lease });
  }
  if (!run.working) return steps;
  if (!run.applying && !run.stopped && !run.fenced && scope.applies) {
    steps.push({
      label: `${name} begins to apply`,
      take: () => applies(core, put(world, { ...runner, run: { ...run, applying: true } }), lease),
    });
    late("report", { kind: "apply", lease });
  }
  const spool = (outcome: Outcome, reason: Reason | null): World =>
    put(world, { ...runner, run: null, spool: [...runner.spool, { lease, outcome, reason, applied: run.applying }] });
  const outcomes: readonly Outcome[] = run.fenced
    ? ["cancelled"]
    : run.stopped
      ? ["cancelled", "succeeded"]
      : scope.outcomes;
  for (const outcome of outcomes)
    steps.push({ label: `${name}'s run ends: ${outcome}`, take: () => spool(outcome, null) });
  steps.push({ label: `${name} is killed at work and restarted`, take: () => spool("refused", RUNNER_STOPPED) });
  return steps;
}

function deliverResult(core: Core, scope: Scope, world: World, { lease, outcome, reason, applied }: Result): World {
  const live = isLive(world, lease);
  const log = { state: "complete" as const, bytes: 0, sha256: null };
  const rest = { exitCode: null, isolation: null, survivorsKilled: 0, outputs: [], statementCount: 1, log };
  const signing = { type: "phase" as const, phase: "signing" as const, at: new Date(NOW).toISOString() };
  const events = applied ? { number: 2, events: [signing] } : null;
  const change = core.finish(world.state, { ...lease, ...rest, events, outcome, reason }, moment());
  if (isRefusal(change)) {
    scope.seen.add("a late result");
    return world;
  }
  always(live, "P5 a stale result changes nothing", `epoch ${lease.epoch}`);
  const index = jobIndex(lease.job);
  const isSeen = outcome !== "refused" && outcome !== "unknown";
  const told = world.told.map((one, at) => (at === index && isSeen ? { ...one, unseen: false } : one));
  return commit(core, { ...world, told }, change);
}

/** The first result of the spool goes out; it leaves the spool when the answer comes. */
function delivering(core: Core, scope: Scope, world: World, runner: RunnerModel): Step[] {
  const [result, ...rest] = runner.spool;
  if (result === undefined) return [];
  const name = named(runner.id);
  const label = `${name} delivers its result: ${result.outcome}`;
  return [
    { label, take: () => put(deliverResult(core, scope, world, result), { ...runner, spool: rest }) },
    { label: `${label}, the answer is lost`, take: () => deliverResult(core, scope, world, result) },
    ...(world.late.length < scope.lateCount
      ? [
          {
            label: `${label}, with a late copy`,
            take: () => ({
              ...put(deliverResult(core, scope, world, result), { ...runner, spool: rest }),
              late: [...world.late, { kind: "result" as const, result }],
            }),
          },
        ]
      : []),
  ];
}

/** A late copy arrives, or is lost. Nobody waits for its answer. */
function arriving(core: Core, world: World, late: Late): Step[] {
  const gone: World = { ...world, late: world.late.filter((one) => one !== late) };
  const quiet = { seen: new Set<string>() } as Scope;
  const arrive = (): World => {
    switch (late.kind) {
      case "heartbeat":
        return beat(core, gone, late.lease).world;
      case "apply":
        return applies(core, gone, late.lease);
      case "result":
        return deliverResult(core, quiet, gone, late.result);
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
