import { isRefusal } from "@plumule/protocol";
import { type Job, liveRuns } from "#durable-objects/deployment/core/model.ts";
import {
  anyProof,
  decidedWithJobs,
  withJobs,
  hidingOccupant,
  withoutTimer,
  withoutEvents,
  unbumped,
  notStopping,
} from "./broken.ts";
import { REAL } from "./core.ts";
import type { Mutation } from "./mutation.ts";
import { QUORUM_MUTATIONS } from "./quorum-mutations.ts";
import { RUNNER_MUTATIONS } from "./runner-mutations.ts";

const FILE_SCOPE = "a task file of two steps that need each other, the first with a plan, stopped by people";

/** A step that has forgotten what it needs. */
function withoutNeeds(job: Job): Job {
  return job.step === undefined ? job : { ...job, step: { ...job.step, needs: [] } };
}

/** The seeded bugs. Each is caught in a small scope, or the properties are too weak. */
export const MUTATIONS: readonly Mutation[] = [
  {
    name: "a result is taken with any epoch",
    scope: "one job",
    caughtBy: ["P5", "P4", "P1"],
    core: { ...REAL, finish: (state, input, moment) => REAL.finish(state, anyProof(state, input), moment) },
  },
  {
    name: "a heartbeat is taken with any epoch",
    scope: "one job",
    caughtBy: ["P5", "P1"],
    core: { ...REAL, heartbeat: (state, input, moment) => REAL.heartbeat(state, anyProof(state, input), moment) },
  },
  {
    name: "a report is taken with any epoch",
    scope: "one job",
    caughtBy: ["P5"],
    core: { ...REAL, report: (state, input, moment) => REAL.report(state, anyProof(state, input), moment) },
  },
  {
    name: "a repeated report is applied again",
    scope: "one job that applies, one runner, reports that are lost, late or repeated",
    caughtBy: ["P8"],
    core: {
      ...REAL,
      report: (state, input, moment) =>
        REAL.report(
          withJobs(state, (job) => ({ ...job, runs: job.runs.map((run) => ({ ...run, reportNumber: 0 })) })),
          input,
          moment,
        ),
    },
  },
  {
    name: "progress that came too soon is never told",
    scope: "one job that applies, one runner, reports that are lost, late or repeated",
    caughtBy: ["progress"],
    core: {
      ...REAL,
      flushProgress: (state, moment) => ({ ...REAL.flushProgress(state, moment), events: [] }),
    },
  },
  {
    name: "a result is taken as it is although the job is being stopped",
    scope: "one job",
    caughtBy: ["P4", "P6"],
    core: { ...REAL, finish: (state, input, moment) => REAL.finish(withJobs(state, notStopping), input, moment) },
  },
  {
    name: "a second job is offered while one runs",
    scope: "two jobs",
    caughtBy: ["P1"],
    core: {
      ...REAL,
      submit: (state, input, moment) => {
        const decided = REAL.submit(state, input, moment);
        if (isRefusal(decided)) return decided;
        const ticket = { number: decided.state.lane.epoch, placed: false, dueAt: 0, tryCount: 1 };
        return decidedWithJobs(decided, (job) => (job.state === "queued" ? { ...job, ticket } : job));
      },
      claim: (state, input, moment) => {
        const decided = REAL.claim(hidingOccupant(state), input, moment);
        const hidden = state.jobs.filter((job) => liveRuns(job).length > 0);
        if (decided.answer === null) return REAL.claim(state, input, moment);
        return { ...decided, state: { ...decided.state, jobs: [...hidden, ...decided.state.jobs] } };
      },
    },
  },
  {
    name: "a job that was granted is granted again",
    scope: "one job",
    caughtBy: ["P1", "claim"],
    core: {
      ...REAL,
      claim: (state, input, moment) => {
        const held = withJobs(state, (job) =>
          job.id === input.job && job.state === "assigned"
            ? { ...job, state: "queued", ticket: { number: input.ticket, placed: true, dueAt: 0, tryCount: 0 } }
            : job,
        );
        return REAL.claim(held, input, moment);
      },
    },
  },
  {
    name: "a repeated claim is not recognised",
    scope: "one job",
    caughtBy: ["claim"],
    core: {
      ...REAL,
      claim: (state, input, moment) =>
        REAL.claim(
          state,
          { ...input, lease: { ...input.lease, requestKey: `${input.lease.requestKey} ${state.lane.epoch}` } },
          moment,
        ),
    },
  },
  {
    name: "a grant forgets to bump the epoch",
    scope: "one job",
    caughtBy: ["P5", "P1"],
    core: {
      ...REAL,
      grantReserved: (state, input, moment) => {
        const epoch = state.lane.epoch - 1;
        return REAL.grantReserved({ ...state, lane: { ...state.lane, epoch } }, input, moment);
      },
    },
  },
  {
    name: "a withdrawn ticket keeps its number for the next",
    scope: "a held job",
    caughtBy: ["P13", "P5"],
    core: {
      ...REAL,
      approve: (state, input, moment) => {
        const decided = REAL.approve(state, input, moment);
        return isRefusal(decided) ? decided : unbumped(state, decided);
      },
      cancel: (state, input, moment) => {
        const decided = REAL.cancel(state, input, moment);
        return isRefusal(decided) ? decided : unbumped(state, decided);
      },
    },
  },
  {
    name: "a job is superseded without a new epoch",
    scope: "two jobs",
    caughtBy: ["P5"],
    core: {
      ...REAL,
      submit: (state, input, moment) => {
        const decided = REAL.submit(state, input, moment);
        return isRefusal(decided) || decided.answer.superseded.length === 0 ? decided : unbumped(state, decided);
      },
    },
  },
  { name: "the timer of a lease is forgotten", scope: "one job", caughtBy: ["P13"], core: withoutTimer("lease") },
  { name: "the timer of a queued job is forgotten", scope: "one job", caughtBy: ["P13"], core: withoutTimer("queue") },
  { name: "the timer of a back-off is forgotten", scope: "one job", caughtBy: ["P13"], core: withoutTimer("ready") },
  {
    name: "a lease that has ended stays",
    scope: "one job, explored in full",
    caughtBy: ["from every state"],
    core: {
      ...REAL,
      fire: (state, timer, moment) =>
        timer.kind === "lease" ? REAL.fire(state, { ...timer, job: "" }, moment) : REAL.fire(state, timer, moment),
    },
  },
  {
    name: "a ticket that did not arrive counts as placed",
    scope: "one job",
    caughtBy: ["P13"],
    core: { ...REAL, noteSent: (state, sent, moment) => REAL.noteSent(state, { ...sent, delivered: true }, moment) },
  },
  {
    name: "the outbox forgets tickets whose first sending failed",
    scope: "one job",
    caughtBy: ["P13"],
    core: { ...REAL, dispatches: (state) => REAL.dispatches(state).filter((one) => one.fresh) },
  },
  {
    name: "attempts are not counted",
    scope: "one job",
    caughtBy: ["P6 attempts"],
    core: {
      ...REAL,
      fire: (state, timer, moment) => {
        const endless =
          (attempts: number) =>
          (job: Job): Job => ({ ...job, brief: { ...job.brief, retry: { ...job.brief.retry, attempts } } });
        const decided = REAL.fire(withJobs(state, endless(99)), timer, moment);
        return decidedWithJobs(decided, endless(2));
      },
    },
  },
  {
    name: "what had begun to apply is tried again",
    scope: "one job",
    caughtBy: ["effect"],
    core: {
      ...REAL,
      fire: (state, timer, moment) =>
        REAL.fire(
          withJobs(state, (job) => (job.phase === "applying" ? { ...job, phase: "building" } : job)),
          timer,
          moment,
        ),
    },
  },
  {
    name: "what began to apply is tried again when its runner was restarted",
    scope: "one job that applies, two runners that are killed, two attempts",
    caughtBy: ["effect"],
    core: {
      ...REAL,
      finish: (state, input, moment) =>
        REAL.finish(
          withJobs(state, (job) => (input.outcome === "refused" ? { ...job, phase: "building" } : job)),
          { ...input, events: null },
          moment,
        ),
    },
  },
  {
    name: "what is being stopped may begin to apply",
    scope: "one job",
    caughtBy: ["effect: one that is stopped"],
    core: {
      ...REAL,
      report: (state, input, moment) => {
        const stopping = new Map(state.jobs.map((job) => [job.id, job.state]));
        const running = withJobs(state, (job) => (job.state === "cancelling" ? { ...job, state: "running" } : job));
        const decided = REAL.report(running, input, moment);
        return isRefusal(decided)
          ? decided
          : decidedWithJobs(decided, (job) => ({ ...job, state: stopping.get(job.id) ?? job.state }));
      },
    },
  },
  {
    name: "an effect applies before its plan is made",
    scope: "an effect with a plan",
    caughtBy: ["effect: one with a plan"],
    core: {
      ...REAL,
      report: (state, input, moment) => {
        const unplanned = withJobs(state, ({ brief: { planned: _, ...brief }, ...job }) => ({ ...job, brief }));
        const decided = REAL.report(unplanned, input, moment);
        return isRefusal(decided)
          ? decided
          : decidedWithJobs(decided, (job) => ({ ...job, brief: { ...job.brief, planned: true } }));
      },
    },
  },
  {
    name: "a step begins while what it needs is held",
    scope: FILE_SCOPE,
    caughtBy: ["steps"],
    core: { ...REAL, finish: (state, input, moment) => REAL.finish(withJobs(state, withoutNeeds), input, moment) },
  },
  {
    name: "a step begins although what it needs was cancelled",
    scope: FILE_SCOPE,
    caughtBy: ["steps"],
    core: { ...REAL, cancel: (state, input, moment) => REAL.cancel(withJobs(state, withoutNeeds), input, moment) },
  },
  {
    name: "a job that applies is interrupted",
    scope: "two jobs",
    caughtBy: ["interrupt"],
    core: {
      ...REAL,
      submit: (state, input, moment) =>
        REAL.submit(state, { ...input, brief: { ...input.brief, interrupt: "always" } }, moment),
    },
  },
  {
    name: "heartbeats keep a job that is being stopped",
    scope: "one job",
    caughtBy: ["P15"],
    core: {
      ...REAL,
      heartbeat: (state, input, moment) =>
        REAL.heartbeat(
          withJobs(state, (job) =>
            job.ending === null ? job : { ...job, ending: { ...job.ending, until: Infinity } },
          ),
          input,
          { ...moment, now: moment.now + 60_000 },
        ),
    },
  },
  {
    name: "the end of a job is not told",
    scope: "one job",
    caughtBy: ["P2", "P6"],
    core: {
      ...REAL,
      finish: (state, input, moment) => {
        const decided = REAL.finish(state, input, moment);
        return isRefusal(decided) ? decided : withoutEvents(decided, (type) => type === "job.succeeded");
      },
    },
  },
  {
    name: "the end of a job is told twice",
    scope: "one job",
    caughtBy: ["P6"],
    core: {
      ...REAL,
      finish: (state, input, moment) => {
        const decided = REAL.finish(state, input, moment);
        return isRefusal(decided) ? decided : { ...decided, events: [...decided.events, ...decided.events] };
      },
    },
  },
  {
    name: "an answer is given before its commit",
    scope: "one job",
    caughtBy: ["P2", "P6"],
    core: { ...REAL, storage: { ...REAL.storage, survives: (_newest, before) => before } },
  },
  {
    name: "a pool keeps its tickets in memory",
    scope: "one job",
    caughtBy: ["P13"],
    core: { ...REAL, storage: { ...REAL.storage, tickets: () => [] } },
  },
  {
    name: "a late drop takes out a newer ticket",
    scope: "a held job",
    caughtBy: ["P13"],
    core: { ...REAL, storage: { ...REAL.storage, drops: () => true } },
  },
  {
    name: "the next sequence is what was the next before the pool was asked",
    scope: "two jobs",
    caughtBy: ["P3"],
    core: { ...REAL, storage: { ...REAL.storage, head: (_stored, remembered) => remembered } },
  },
  ...RUNNER_MUTATIONS,
  ...QUORUM_MUTATIONS,
];
