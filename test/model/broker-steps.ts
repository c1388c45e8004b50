import type { Dispatch } from "#durable-objects/deployment/core/tickets.ts";
import type { Timer } from "#durable-objects/deployment/core/timers.ts";
import { always, commit } from "./always.ts";
import type { Core } from "./core.ts";
import { submitSteps, withoutCalls } from "./people-steps.ts";
import { PoolStep } from "./pool.ts";
import { fence } from "./machine.ts";
import type { Scope } from "./scopes.ts";
import { jobNamed, leaseOf, named, type Step, withPool } from "./step.ts";
import { type Call, leaseOffer, moment, type PollModel, rebase, type World } from "./world.ts";

/** Everything that the deployment, its pool and their calls may do next. */
export function brokerSteps(core: Core, scope: Scope, world: World): Step[] {
  return [
    ...core.timers(world.state, null).map((timer) => timerStep(core, scope, world, timer)),
    ...core.dispatches(world.state).flatMap((one) => sendSteps(core, scope, world, one)),
    ...world.calls.flatMap((call) => callSteps(core, scope, world, call)),
    ...poolSteps(core, world),
    ...tellProgress(core, world),
    ...evictions(core, world),
  ];
}

function timerStep(core: Core, scope: Scope, world: World, timer: Timer): Step {
  return {
    label: `timer ${timer.kind} of ${timer.run === undefined ? "" : `run ${timer.run.slice(17, 18)} of `}${jobNamed(timer.job)}`,
    take: () => {
      const job = world.state.jobs.find(({ id }) => id === timer.job);
      const epoch = job?.runs.find(({ id }) => id === timer.run)?.epoch ?? 0;
      if (timer.kind === "lease" && job?.quorum !== undefined) scope.seen.add("a replica lost");
      const before = timer.kind === "lease" ? fence(core, scope, world, epoch) : world;
      return commit(core, before, core.fire(world.state, timer, moment(timer.at)));
    },
  };
}

/** Progress that came too soon after the last is told a moment later. */
function tellProgress(core: Core, world: World): Step[] {
  const isOwed = world.state.jobs.some(({ runs }) => runs.some(({ progressUntold }) => progressUntold));
  if (!isOwed) return [];
  return [{ label: "progress is told", take: () => commit(core, world, core.flushProgress(world.state, moment())) }];
}

function sendSteps(core: Core, scope: Scope, world: World, dispatch: Dispatch): Step[] {
  if (dispatch.kind === "drop") {
    const { job, number } = dispatch;
    const drop = (): World => {
      const pool = new PoolStep(world.pool);
      pool.drop(core, job, number);
      return withPool(world, pool);
    };
    const answered = (after: World): World =>
      commit(core, after, core.noteSent(world.state, { dispatch, delivered: true, waiting: null }, moment()));
    const label = `drop the ticket of ${jobNamed(job)}`;
    return [
      { label, take: () => answered(drop()) },
      ...(world.late.length < scope.lateCount
        ? [
            {
              label: `${label}, with a late copy`,
              take: () => ({ ...answered(drop()), late: [...world.late, { kind: "drop" as const, job, number }] }),
            },
          ]
        : []),
    ];
  }
  const { ticket, fresh } = dispatch;
  const isUnderWay = world.calls.some(
    (call) =>
      (call.kind === "reserved" && call.job === ticket.job) ||
      (call.kind === "put" && call.job === ticket.job && call.number === ticket.number),
  );
  if (isUnderWay) return [];
  const send = (copy: boolean): World => {
    const pool = new PoolStep(world.pool);
    const poll = fresh ? pool.reserve(ticket) : null;
    if (poll === null) pool.put(ticket);
    const call: Call =
      poll === null
        ? { kind: "put", job: ticket.job, number: ticket.number }
        : { kind: "reserved", job: ticket.job, poll };
    const after = withPool(world, pool);
    return {
      ...after,
      calls: [...after.calls, call],
      late: copy ? [...world.late, { kind: "put", ticket }] : world.late,
    };
  };
  const label = `offer ${jobNamed(ticket.job)} to its pool`;
  return [
    { label, take: () => send(false) },
    ...(world.late.length < scope.lateCount ? [{ label: `${label}, with a late copy`, take: () => send(true) }] : []),
    {
      label: `${label}, which cannot be reached`,
      take: () =>
        commit(core, world, core.noteSent(world.state, { dispatch, delivered: false, waiting: null }, moment())),
    },
  ];
}

function callSteps(core: Core, scope: Scope, world: World, call: Call): Step[] {
  const done: World = { ...world, calls: world.calls.filter((one) => one !== call) };
  switch (call.kind) {
    case "submit":
      return submitSteps(core, scope, done, call);
    case "reserved": {
      const { job, poll } = call;
      const decide = (isDelivered: boolean): World => {
        const decided = core.grantReserved(world.state, { job, lease: leaseOffer(world, poll) }, moment());
        const pool = new PoolStep(world.pool);
        if (decided.answer === null) pool.release(poll);
        else if (isDelivered) pool.deliver(poll, leaseOf(decided.answer));
        return commit(core, withPool(done, pool), decided);
      };
      const label = `the reserved ${named(poll.runner)} is granted ${jobNamed(job)}`;
      return [
        { label, take: () => decide(true) },
        { label: `${label}, which does not reach its pool`, take: () => decide(false) },
      ];
    }
    case "put": {
      const dispatch = core
        .dispatches(world.state)
        .find((one) => one.kind === "put" && one.ticket.job === call.job && one.ticket.number === call.number);
      const note = (delivered: boolean): World =>
        dispatch === undefined
          ? done
          : commit(core, done, core.noteSent(world.state, { dispatch, delivered, waiting: null }, moment()));
      return [
        { label: `the pool has answered about ${jobNamed(call.job)}`, take: () => note(true) },
        { label: `the pool's answer about ${jobNamed(call.job)} is lost`, take: () => note(false) },
      ];
    }
  }
}

function poolSteps(core: Core, world: World): Step[] {
  const { claims, reservations, polls } = world.pool;
  const steps: Step[] = [];
  for (const claim of claims) {
    const { runner, key, job, number } = claim;
    const decide = (lost: boolean): World => {
      const live = world.state.jobs.find(({ id }) => id === job)?.runs ?? [];
      const known = live.find((run) => run.state === "assigned" && run.requestKey === key && run.runner === runner);
      const decided = core.claim(
        world.state,
        { job, ticket: number, lease: leaseOffer(world, { runner, key }) },
        moment(),
      );
      if (known !== undefined)
        always(decided.answer?.run.epoch === known.epoch, "claim: a repeated one gets the same lease", jobNamed(job));
      const pool = new PoolStep(world.pool);
      pool.claimed(claim, lost ? "lost" : decided.answer === null ? null : leaseOf(decided.answer));
      return commit(core, withPool(world, pool), decided);
    };
    const label = `the pool claims ${jobNamed(job)} for ${named(runner)}`;
    steps.push(
      { label, take: () => decide(false) },
      { label: `${label}, the answer is lost`, take: () => decide(true) },
    );
  }
  const inPool = (label: string, work: (pool: PoolStep) => void): void => {
    steps.push({
      label,
      take: () => {
        const pool = new PoolStep(world.pool);
        work(pool);
        return withPool(world, pool);
      },
    });
  };
  for (const poll of reservations)
    inPool(`the reservation of ${named(poll.runner)} ends`, (pool) => pool.release(poll));
  const isAside = (poll: PollModel): boolean =>
    [...claims, ...reservations].some(({ runner, key }) => runner === poll.runner && key === poll.key);
  for (const poll of polls)
    if (!isAside(poll) && world.pool.tickets.length > 0)
      inPool(`${named(poll.runner)}'s poll looks again`, (pool) => pool.serve(poll));
  return steps;
}

function evictions(core: Core, world: World): Step[] {
  return [
    {
      label: "the deployment is evicted",
      take: () => withoutCalls({ ...world, state: rebase(core.storage.survives(world.state, world.before)) }),
    },
    {
      label: "the pool is evicted",
      take: () => ({
        ...world,
        pool: {
          ...world.pool,
          tickets: core.storage.tickets(world.pool.tickets),
          polls: [],
          claims: [],
          reservations: [],
          deliveries: [],
        },
      }),
    },
  ];
}
