import { isRefusal } from "@plumule/protocol";
import type { Job, State } from "#durable-objects/deployment/core/model.ts";
import type { Reported } from "#durable-objects/deployment/core/result.ts";
import { decidedWithJobs, withJobs } from "./broken.ts";
import { type Core, REAL } from "./core.ts";
import type { Mutation } from "./mutation.ts";

const SCOPE = "a quorum of two of three, one of them lies or is lost";

/** A deployment that hears other ballots than those that were cast. */
function hearing(change: (statements: Ballot["statements"], input: Reported) => Ballot["statements"]): Core {
  return {
    ...REAL,
    finish: (state, input, moment) =>
      REAL.finish(
        state,
        input.ballot == null
          ? input
          : { ...input, ballot: { ...input.ballot, statements: change(input.ballot.statements, input) } },
        moment,
      ),
  };
}
type Ballot = NonNullable<Reported["ballot"]>;

/** A deployment that decides something as if its jobs asked for another agreement. */
const withQuorum = (state: State, change: (job: Job) => Partial<Job>): State =>
  withJobs(state, (job) => (job.quorum === undefined ? job : { ...job, ...change(job) }));

const agreeing =
  (agree: number) =>
  (job: Job): Job =>
    job.brief.quorum === undefined ? job : { ...job, brief: { ...job.brief, quorum: { replicas: 3, agree } } };
const asking = (state: State, agree: number): State => withJobs(state, agreeing(agree));

/** Bugs of a quorum. */
export const QUORUM_MUTATIONS: readonly Mutation[] = [
  {
    name: "the vote of one runner is enough",
    scope: SCOPE,
    caughtBy: ["P10 green"],
    core: {
      ...REAL,
      finish: (state, input, moment) => {
        const decided = REAL.finish(asking(state, 1), input, moment);
        return isRefusal(decided) ? decided : decidedWithJobs(decided, agreeing(2));
      },
    },
  },
  {
    name: "one vote is counted under two keys",
    scope: SCOPE,
    caughtBy: ["P10 green"],
    core: hearing((statements) =>
      statements.flatMap((one) => [
        one,
        { ...one, signer: one.signer === "runner-0" ? "runner-1" : "runner-0", sha256: `${one.sha256} again` },
      ]),
    ),
  },
  {
    name: "what was built is not compared",
    scope: SCOPE,
    caughtBy: ["P10"],
    core: hearing((statements) => statements.map((one) => ({ ...one, claims: { ...one.claims, outputs: [] } }))),
  },
  {
    name: "a ballot is drawn without the votes that came before",
    scope: SCOPE,
    caughtBy: ["P10"],
    core: hearing((statements) => statements.slice(-1)),
  },
  {
    name: "a runner gets a second replica of one job",
    scope: SCOPE,
    caughtBy: ["P10 each", "claim"],
    core: {
      ...REAL,
      claim: (state, input, moment) => {
        const decided = REAL.claim(
          withQuorum(state, ({ runs }) => ({ runs: runs.map((run) => ({ ...run, runner: `not ${run.runner}` })) })),
          input,
          moment,
        );
        const own = (job: Job): Job => ({
          ...job,
          runs: job.runs.map((run) => ({ ...run, runner: run.runner.replace("not ", "") })),
        });
        return decidedWithJobs(decided, own);
      },
      dispatches: (state) =>
        REAL.dispatches(state).map((one) =>
          one.kind === "put" ? { ...one, ticket: { ...one.ticket, needs: {} }, fresh: false } : one,
        ),
    },
  },
  {
    name: "the job ends while a replica is at work",
    scope: SCOPE,
    caughtBy: ["P1"],
    core: {
      ...REAL,
      finish: (state, input, moment) => {
        const decided = REAL.finish(state, input, moment);
        if (isRefusal(decided)) return decided;
        const ends = (job: Job): boolean => job.quorum?.conclusion?.state === "succeeded" && job.state === "running";
        const ended = decided.jobs.map((job) => (ends(job) ? { ...job, state: "succeeded" as const } : job));
        return {
          ...decided,
          jobs: ended,
          state: { ...decided.state, jobs: decided.state.jobs.filter((job) => !ends(job)) },
        };
      },
    },
  },
  {
    name: "a lost replica takes the others with it",
    scope: SCOPE,
    caughtBy: ["P1", "P10"],
    core: {
      ...REAL,
      fire: (state, timer, moment) => {
        if (timer.kind !== "lease") return REAL.fire(state, timer, moment);
        const plain = withJobs(state, ({ quorum: _, ...job }) => job);
        return REAL.fire(plain, timer, moment);
      },
    },
  },
];
