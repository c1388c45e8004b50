import type { RunId } from "@plumule/protocol";
import { liveRuns } from "#durable-objects/deployment/core/model.ts";
import type { Lease, RunnerModel, World } from "./world.ts";

/**
 * Clears away at once what dead leases left behind: results that will be refused, assignments that nobody may begin, drops of stale tickets. A
 * dead lease never lives again, so all of it is going to be refused whenever it comes; that it is refused at any time is for the scopes
 * that do not settle. Without it two jobs on two runners with two attempts have many millions of states.
 */
export function settle(world: World): World {
  const live = new Set(world.state.jobs.flatMap((job) => liveRuns(job).map(({ epoch }) => epoch)));
  const isLive = (lease: Lease | null): boolean => lease !== null && live.has(lease.epoch);
  const { pool, state } = world;
  const numbers = new Map(
    state.jobs.flatMap(({ id, ticket }) => (ticket === null ? [] : [[id, ticket.number] as const])),
  );
  const isWanted = ({ job, number }: { job: string; number: number }): boolean => numbers.get(job) === number;
  return {
    ...world,
    runners: world.runners.map((runner) => settleRunner(runner, isLive)),
    state: { ...state, lane: { ...state.lane, drops: [] } },
    pool: {
      ...pool,
      known: world.runners.map(({ id }) => id),
      tickets: pool.tickets.filter(
        (ticket) => isWanted(ticket) || pool.claims.some((claim) => repeats(world, claim) && claim.job === ticket.job),
      ),
      claims: pool.claims.filter((claim) => isWanted(claim) || repeats(world, claim)),
      deliveries: pool.deliveries.filter(({ lease }) => isLive(lease)),
    },
    calls: world.calls.filter((call) => call.kind !== "put" || isWanted(call)),
  };
}

/** A runner as it is when every answer about a dead lease has come. */
function settleRunner(runner: RunnerModel, isLive: (lease: Lease | null) => boolean): RunnerModel {
  const dead = new Set(runner.leases.flatMap((lease) => (isLive(lease) ? [] : [lease.run])));
  const isLost = runner.reply !== null && !isLive(runner.reply);
  if (dead.size === 0 && !isLost) return runner;
  const lives = ({ run }: { run: RunId }): boolean => !dead.has(run);
  const { disk, memory } = runner;
  const key = isLost ? null : disk.key;
  return {
    ...runner,
    disk: { key, runs: disk.runs.filter(lives), spool: disk.spool.filter((run) => !dead.has(run)) },
    memory:
      memory === null
        ? null
        : {
            ...memory,
            key: isLost ? null : memory.key,
            asking: memory.asking && !isLost,
            runs: memory.runs.filter(lives),
            spool: memory.spool.filter((run) => !dead.has(run)),
          },
    going: runner.going.filter((one) => (one.do === "poll" ? !isLost : lives(one))),
    processes: runner.processes.filter(lives),
    leases: runner.leases.filter(lives),
    results: runner.results.filter(({ lease }) => isLive(lease)),
    reply: isLost ? null : runner.reply,
  };
}

/** A claim whose answer was lost: it was granted, and repeating it brings the same lease back. */
function repeats({ state }: World, claim: { job: string; runner: string; key: string }): boolean {
  const job = state.jobs.find(({ id }) => id === claim.job);
  const live = job === undefined ? [] : liveRuns(job);
  return live.some((run) => run.state === "assigned" && run.runner === claim.runner && run.requestKey === claim.key);
}
