import { liveRun } from "#durable-objects/deployment/core/model.ts";
import { type Lease, type World } from "./world.ts";

/**
 * Clears away at once what dead leases left behind: results that will be refused, assignments that nobody may begin, drops of stale tickets. A
 * dead lease never lives again, so all of it is going to be refused whenever it comes; that it is refused at any time is for the scopes
 * that do not settle. Without it two jobs on two runners with two attempts have many millions of states.
 */
export function settle(world: World): World {
  const live = new Set(world.state.jobs.flatMap((job) => liveRun(job)?.epoch ?? []));
  const isLive = (lease: Lease | null): boolean => lease !== null && live.has(lease.epoch);
  const runners = world.runners.map((runner) => {
    const { reply, run, spool } = runner;
    const isDead = reply !== null && !isLive(reply);
    return {
      ...runner,
      reply: isDead ? null : reply,
      key: isDead ? null : runner.key,
      run: run !== null && isLive(run.lease) ? run : null,
      spool: spool.filter(({ lease }) => isLive(lease)),
    };
  });
  const { pool, state } = world;
  const numbers = new Map(
    state.jobs.flatMap(({ id, ticket }) => (ticket === null ? [] : [[id, ticket.number] as const])),
  );
  const isWanted = ({ job, number }: { job: string; number: number }): boolean => numbers.get(job) === number;
  return {
    ...world,
    runners,
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
    calls: world.calls.filter((call) => call.kind === "reserved" || isWanted(call)),
  };
}

/** A claim whose answer was lost: it was granted, and repeating it brings the same lease back. */
function repeats({ state }: World, claim: { job: string; runner: string; key: string }): boolean {
  const job = state.jobs.find(({ id }) => id === claim.job);
  const run = job === undefined ? null : liveRun(job);
  return job?.state === "assigned" && run?.runner === claim.runner && run.requestKey === claim.key;
}
