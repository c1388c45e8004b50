import type { Leased } from "#durable-objects/deployment/core/lease.ts";
import type { PoolStep } from "./pool.ts";
import { jobIndex, type Lease, type World } from "./world.ts";

/** One thing that may happen next: what it is, for a trace, and the state after it. */
export type Step<W = World> = { label: string; take: () => W };

/** A runner for a trace. */
export const named = (runner: string): string => runner.replace("-", " ");
/** A job for a trace, counted from 1. */
export const jobNamed = (job: string): string => `job ${jobIndex(job) + 1}`;

/** Puts a pool back, and its answers on their way: a runner hears only the answer to the poll that it waits for. */
export function withPool(world: World, step: PoolStep): World {
  const runners = world.runners.map((runner) => {
    const waits = runner.going.find((one) => one.do === "poll");
    const answer = step.answers.findLast(({ runner: id, key }) => id === runner.id && key === waits?.key);
    return answer?.lease == null ? runner : { ...runner, reply: answer.lease };
  });
  return { ...world, pool: step.model, runners };
}

/** What a runner is told of a grant. */
export function leaseOf({ job, run }: Leased): Lease {
  return { run: run.id, leaseSha256: run.leaseSha256, epoch: run.epoch, job: job.id, runner: run.runner };
}
