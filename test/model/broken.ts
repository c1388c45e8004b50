// What seeded bugs are made of: states and decisions that are wrong in one way.
import { type Job, liveRuns, type State } from "#durable-objects/deployment/core/model.ts";
import type { LeaseProof } from "#durable-objects/deployment/core/lease.ts";
import type { Timer } from "#durable-objects/deployment/core/timers.ts";
import type { Change } from "#durable-objects/deployment/core/work.ts";
import { type Core, REAL } from "./core.ts";

/** What the newest lease of a job would show: the check of token and epoch is gone. */
export function anyProof<Proof extends LeaseProof>(state: State, proof: Proof): Proof {
  const run = state.jobs.flatMap((job) => liveRuns(job))[0];
  return run === undefined ? proof : { ...proof, run: run.id, leaseSha256: run.leaseSha256, epoch: run.epoch };
}

/** Every live job changed. */
export function withJobs(state: State, change: (job: Job) => Job): State {
  return { ...state, jobs: state.jobs.map(change) };
}

/** A decision whose every live job comes out changed, in the state and in what is stored. */
export function decidedWithJobs<Decision extends Change>(decided: Decision, change: (job: Job) => Job): Decision {
  const jobs = decided.state.jobs.map((job): [Job, Job] => [job, change(job)]);
  const changed = new Map(jobs);
  const touched = new Set([...decided.jobs, ...jobs.flatMap(([job, is]) => (job === is ? [] : [job]))]);
  return {
    ...decided,
    state: { ...decided.state, jobs: jobs.map(([, is]) => is) },
    jobs: [...touched].map((job) => changed.get(job) ?? change(job)),
  };
}

/** The lane looks free, and what is live is put back after the decision. */
export function hidingOccupant(state: State): State {
  return { ...state, jobs: state.jobs.filter((job) => liveRuns(job).length === 0) };
}

/** A core that never names one kind of timer. */
export function withoutTimer(kind: Timer["kind"]): Core {
  return { ...REAL, timers: (state, output) => REAL.timers(state, output).filter((timer) => timer.kind !== kind) };
}

/** A decision that keeps some of its events to itself. */
export function withoutEvents<Decision extends Change>(decided: Decision, isLost: (type: string) => boolean): Decision {
  return { ...decided, events: decided.events.filter(({ type }) => !isLost(type)) };
}

/** The epoch that was before, in the lane and in new tickets: nothing was bumped. */
export function unbumped<Decision extends Change>({ lane: { epoch } }: State, decided: Decision): Decision {
  const old = decidedWithJobs(decided, (job) =>
    job.ticket === null ? job : { ...job, ticket: { ...job.ticket, number: Math.min(job.ticket.number, epoch) } },
  );
  return { ...old, state: { ...old.state, lane: { ...old.state.lane, epoch } } };
}

/** A job as it was before somebody stopped it. */
export const notStopping = (job: Job): Job =>
  job.state === "cancelling" ? { ...job, state: "running", ending: null, command: null } : job;
