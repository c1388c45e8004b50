import { isRefusal, type JobId, type Refusal } from "@plumule/protocol";
import { briefOf } from "#durable-objects/deployment/bodies.ts";
import { approve, cancel, resolve } from "#durable-objects/deployment/core/cancel.ts";
import { brokenRule } from "#durable-objects/deployment/core/invariants.ts";
import { claim } from "#durable-objects/deployment/core/lease.ts";
import { isOccupying, type Job, liveRun } from "#durable-objects/deployment/core/model.ts";
import { finish } from "#durable-objects/deployment/core/result.ts";
import { submit } from "#durable-objects/deployment/core/submit.ts";
import { fire, type Timer } from "#durable-objects/deployment/core/timers.ts";
import type { Change } from "#durable-objects/deployment/core/work.ts";
import type { LockAnswer, LocksCall } from "#durable-objects/namespace/calls.ts";
import { always, Violation } from "./always.ts";
import {
  digestLocks,
  emptyLocks,
  laneName,
  type LaneModel,
  type LateWord,
  type LockCore,
  type LockScope,
  type LockWorld,
  rebaseLocks,
  type RowModel,
  withLane,
  wordOf,
} from "./lock-world.ts";
import { explore, type Found, type Space } from "./explore.ts";
import { submissionOf } from "./people-steps.ts";
import { jobNamed, type Step } from "./step.ts";
import { moment, NOW } from "./world.ts";

type LockStep = Step<LockWorld>;

/** Far beyond every pause of a namespace: it may have anybody asked at any step. */
const LATER = NOW + 365 * 24 * 3600_000;

/** Commits a decision of a lane. */
function commit(core: LockCore, world: LockWorld, index: number, change: Change): LockWorld {
  const lane = laneOf(world, index);
  const [rule = "", ...seen] = brokenRule(lane.state, change, NOW)?.split(": ") ?? [];
  always(rule === "", rule, `${seen.join(": ")} (refused before its commit)`);
  const { jobs, state } = core.committed(change);
  const ended = jobs.filter((job) => job.state === "unknown");
  const left = lane.unseen.filter((one) => jobs.every(({ id }) => id !== one.id));
  return withLane(world, index, { state: rebaseLocks(state), unseen: [...left, ...ended] });
}

function laneOf(world: LockWorld, index: number): LaneModel {
  const lane = world.lanes[index];
  if (lane === undefined) throw new Error(`no lane ${index}`);
  return lane;
}

/** Everything that may happen. */
function stepsOf(core: LockCore, scope: LockScope, world: LockWorld): LockStep[] {
  return [
    ...world.lanes.flatMap((lane, index) => [
      ...jobSteps(core, scope, world, index, lane),
      ...wordSteps(core, scope, world, index, lane),
    ]),
    ...world.rows.flatMap((row, at) => questionSteps(core, scope, world, row, at)),
    ...world.late.flatMap((late) => lateSteps(core, scope, world, late)),
  ];
}

/** What becomes of jobs: people and runners. */
function jobSteps(core: LockCore, scope: LockScope, world: LockWorld, index: number, lane: LaneModel): LockStep[] {
  const { state, submittedCount, unseen } = lane;
  const steps: LockStep[] = [];
  const decide = (label: string, change: () => Change | Refusal, over: Partial<LockWorld> = {}): void => {
    const take = (): LockWorld => {
      const decided = change();
      return isRefusal(decided) ? world : commit(core, { ...world, ...over }, index, decided);
    };
    steps.push({ label: `${label} in ${laneName(index)}`, take });
  };
  const body = scope.lanes[index]?.[submittedCount];
  if (body !== undefined)
    decide(
      `submit job ${submittedCount + 1}`,
      () => {
        const spec = {
          task: { kind: "shell" as const, script: "true" },
          retry: { attempts: Math.max(1, scope.attempts) },
          ...body,
        };
        return submit(state, submissionOf(briefOf(spec), submittedCount), moment());
      },
      withLane(world, index, { submittedCount: submittedCount + 1 }),
    );
  for (const job of state.jobs) {
    const { id } = job;
    if (job.state === "held")
      decide(`approve ${jobNamed(id)}`, () => approve(state, { job: id, commit: null }, moment()));
    if (job.ready !== null) decide(`${jobNamed(id)} is rested`, () => fired(lane, { job: id, kind: "ready", at: NOW }));
    if (world.cancelledCount < scope.cancelCount && !isOccupying(job))
      decide(
        `cancel ${jobNamed(id)}`,
        () => cancel(state, { job: id, force: false, why: WHY, ifMatch: null }, moment()),
        {
          cancelledCount: world.cancelledCount + 1,
        },
      );
    if (job.ticket !== null) {
      const { number } = job.ticket;
      const key = `${id} ${number}`;
      const lease = { runner: "runner", requestKey: key, leaseToken: key, leaseSha256: key };
      decide(`a runner takes ${jobNamed(id)}`, () => claim(state, { job: id, ticket: number, lease }, moment()));
    }
    if (isOccupying(job)) endSteps(scope, lane, job, decide);
  }
  for (const job of unseen)
    decide(`somebody says how ${jobNamed(job.id)} ended`, () =>
      resolve(state, { job, outcome: "failed", detail: "seen" }, moment()),
    );
  return steps;
}

const WHY = { code: "cancelled" as const, detail: "asked for" };

function endSteps(
  scope: LockScope,
  lane: LaneModel,
  job: Job,
  decide: (label: string, change: () => Change | Refusal) => void,
): void {
  const run = liveRun(job);
  if (run === null) return;
  const result = {
    run: run.id,
    leaseSha256: run.leaseSha256,
    epoch: run.epoch,
    exitCode: null,
    reason: null,
    isolation: null,
    survivorsKilled: 0,
    outputs: [],
    statementCount: 1,
    log: { state: "complete" as const, bytes: 0, sha256: null },
    events: null,
  };
  for (const outcome of scope.isUnseen ? (["succeeded", "unknown"] as const) : (["succeeded"] as const))
    decide(`${jobNamed(job.id)} ends ${outcome}`, () => finish(lane.state, { ...result, outcome }, moment()));
  if (scope.attempts > 0)
    decide(`the lease of ${jobNamed(job.id)} ends`, () =>
      fired(lane, { job: job.id, kind: "lease", at: NOW, run: run.id }),
    );
}

/** A timer fires when it is due. */
function fired({ state }: LaneModel, timer: Timer): Change {
  return fire(state, timer, moment(LATER));
}

/** A lane says its word: it reaches the namespace, whose answer reaches the lane, or anything of it is lost, with or without the lane's instance. */
function wordSteps(core: LockCore, scope: LockScope, world: LockWorld, index: number, lane: LaneModel): LockStep[] {
  const name = laneName(index);
  if (lane.underWay === null) {
    const word = wordOf(lane);
    const say = (): LockWorld => withLane(world, index, { underWay: word === null ? null : { word, answer: null } });
    return word === null ? [] : [{ label: `${name} speaks`, take: say }];
  }
  const { word, answer } = lane.underWay;
  const gone = withLane(world, index, { underWay: null });
  const steps: LockStep[] = scope.faulty.includes(index)
    ? [{ label: `what ${name} said, or its answer, is lost`, take: () => gone }]
    : [];
  if (answer !== null) {
    const news = answer.told === null || word.wanted === null ? null : { job: word.wanted.job, ...answer.told };
    const hear = (): LockWorld =>
      commit(core, gone, index, core.said(lane.state, word, { taken: true, news }, moment()));
    return [...steps, { label: `${name} is answered`, take: hear }];
  }
  const arrive = (): LockWorld => {
    const heard = settled(core, scope, world, index, word);
    return withLane(heard.world, index, { underWay: { word, answer: { told: heard.answer } } });
  };
  steps.push({ label: `${name} is heard`, take: arrive });
  if (world.lateCount < scope.lateCount)
    steps.push({
      label: `what ${name} said is late`,
      take: () => withLate(gone, { kind: "word", lane: index, word }),
    });
  return steps;
}

/** The namespace takes the word of a lane. */
function settled(
  core: LockCore,
  scope: LockScope,
  world: LockWorld,
  index: number,
  { released, wanted }: Pick<LocksCall, "wanted"> & { released: readonly { job: JobId; number: number }[] },
): { world: LockWorld; answer: LockAnswer | null } {
  const call = { deployment: laneName(index), released: [...released], wanted };
  const { requests, tell, answer } = core.settle(world.requests, call, scope.checks ? LATER : NOW);
  const rows = tell.reduce((all, { deployment, job }) => {
    const lane = world.lanes.findIndex((_, at) => laneName(at) === deployment);
    // As `insertReminder`, without the second of two rows that would both read the same.
    const isKnown = all.some((one) => one.lane === lane && one.job === job && one.asked === null);
    return isKnown ? all : [...all, { lane, job, asked: null }];
  }, world.rows);
  // When it was last asked is not told apart: with checks, anybody may be asked at any time.
  const rebased = requests.map((one) => ({
    ...one,
    askedAt: NOW,
    checkedAt: NOW,
    heldAt: one.heldAt === null ? null : NOW,
  }));
  return { world: { ...world, requests: rebased, rows }, answer };
}

/** A row of the namespace's outbox, the first of its job: asked, answered, or lost on the way and asked again. */
function questionSteps(core: LockCore, scope: LockScope, world: LockWorld, row: RowModel, at: number): LockStep[] {
  const { lane: index, job, asked } = row;
  if (world.rows.findIndex((one) => one.lane === index && one.job === job) !== at) return [];
  const about = `${jobNamed(job)} of ${laneName(index)}`;
  const withRow = (from: LockWorld, change: RowModel | null): LockWorld => ({
    ...from,
    rows: from.rows.flatMap((one, place) => (place === at ? (change ?? []) : one)),
  });
  if (asked === null) {
    const request = world.requests.find((one) => one.deployment === laneName(index) && one.job === job);
    if (request === undefined) return [{ label: `nothing is asked of ${about}`, take: () => withRow(world, null) }];
    const question = { number: request.number, held: request.heldAt !== null, reply: null };
    return [{ label: `the namespace asks about ${about}`, take: () => withRow(world, { ...row, asked: question }) }];
  }
  const { number, held, reply } = asked;
  const lost = withRow(world, { ...row, asked: null });
  const steps: LockStep[] = scope.faulty.includes(index)
    ? [{ label: `the question about ${about} is lost`, take: () => lost }]
    : [];
  if (reply !== null) {
    const take = (): LockWorld => {
      const done = withRow(world, null);
      return reply ? done : settled(core, scope, done, index, { released: [{ job, number }], wanted: null }).world;
    };
    return [...steps, { label: `the namespace hears about ${about}`, take }];
  }
  const hear = (): LockWorld => {
    const heard = questioned(core, world, index, { job, number, held });
    return withRow(heard.world, { ...row, asked: { ...asked, reply: heard.reply } });
  };
  steps.push({ label: `${laneName(index)} is asked about ${jobNamed(job)}`, take: hear });
  if (world.lateCount < scope.lateCount)
    steps.push({
      label: `the question about ${about} is late`,
      take: () => withLate(lost, { kind: "question", lane: index, job, number, held }),
    });
  return steps;
}

/** A deployment is asked, as `Locks.told` does it. */
function questioned(
  core: LockCore,
  world: LockWorld,
  index: number,
  { job: id, number, held }: { job: JobId; number: number; held: boolean },
): { world: LockWorld; reply: boolean } {
  const { state, unseen } = laneOf(world, index);
  const job = [...state.jobs, ...unseen].find((one) => one.id === id) ?? null;
  if (!core.isWanted(job, number)) return { world, reply: false };
  const told = core.told(state, { job: id, number, wait: null }, moment());
  return { world: held ? commit(core, world, index, told) : world, reply: true };
}

function withLate(world: LockWorld, late: LateWord): LockWorld {
  return { ...world, late: [...world.late, late], lateCount: world.lateCount + 1 };
}

function lateSteps(core: LockCore, scope: LockScope, world: LockWorld, late: LateWord): LockStep[] {
  const gone = { ...world, late: world.late.filter((one) => one !== late) };
  const arrive = (): LockWorld =>
    late.kind === "word"
      ? settled(core, scope, gone, late.lane, late.word).world
      : questioned(core, gone, late.lane, late).world;
  return [
    { label: `a late ${late.kind} of ${laneName(late.lane)} arrives`, take: arrive },
    { label: `a late ${late.kind} of ${laneName(late.lane)} is lost`, take: () => gone },
  ];
}

/** No two jobs hold a lock, and nobody comes before whoever asked earlier. */
function check({ lanes, requests }: LockWorld): void {
  const held = new Map<string, string>();
  lanes.forEach(({ state, unseen }, index) => {
    const works = state.jobs.filter((job) => isOccupying(job) || job.locks?.heldAt != null);
    for (const job of [...works, ...unseen])
      for (const name of job.brief.locks ?? []) {
        const holder = `${jobNamed(job.id)} of ${laneName(index)}`;
        const other = held.get(name);
        if (other !== undefined) throw new Violation("P1 a lock has one job", `${name}: ${other} and ${holder}`);
        held.set(name, holder);
      }
  });
  requests.forEach((one, index) => {
    const first = requests.slice(0, index).every(({ locks }) => !locks.some((name) => one.locks.includes(name)));
    always(one.heldAt === null || first, "P6 nobody is overtaken", `${one.deployment} holds before its turn`);
  });
}

/** The world of locks. */
export function lockSpace(core: LockCore, scope: LockScope): Space<LockWorld> {
  return {
    start: () => emptyLocks(scope),
    stepsOf: (world) => stepsOf(core, scope, world),
    check,
    digest: digestLocks,
    isQuiet: ({ lanes }) =>
      lanes.every(
        ({ state, unseen, submittedCount }, index) =>
          submittedCount === scope.lanes[index]?.length &&
          state.jobs.length + unseen.length + state.lane.releases.length === 0,
      ),
    note: (before, after, reached) =>
      after.lanes.forEach(({ state }, index) => {
        for (const { id, locks } of laneOf(before, index).state.jobs)
          if (locks?.heldAt != null && state.jobs.some((job) => job.id === id && job.locks === undefined))
            reached.add("overtaken");
        if (state.jobs.some((job) => job.locks?.heldAt != null && job.ready !== null)) reached.add("tried again");
        if (laneOf(after, index).unseen.length > 0) reached.add("unseen");
      }),
    seen: new Set(),
  };
}

/** Explores a scope in full, or until `maxStates` were met. */
export function searchLocks(core: LockCore, scope: LockScope, maxStates = Infinity): Found {
  return explore(lockSpace(core, scope), maxStates);
}
