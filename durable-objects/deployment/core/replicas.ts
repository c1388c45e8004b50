import {
  eligibleSigners,
  type MatchedJob,
  quorumPolicy,
  type Quorum,
  type QuorumView,
  type RunnerId,
} from "@plumule/protocol";
import { type Brief, type Job, type Lane, liveRuns, type QuorumRecord, type Run } from "./model.ts";

/** What of a lane decides who may get its jobs. */
type Keeping = Pick<Lane, "stateKeeper">;

/** A job of several replicas. */
export type Replicated = Job & { quorum: QuorumRecord; brief: Brief & { quorum: Quorum } };

/** Whether several runners have to agree about the job. */
export function isReplicated(job: Job): job is Replicated {
  return job.quorum !== undefined && job.brief.quorum !== undefined;
}

/** The ref that a job is about; empty where there is none. */
export function refOf(brief: Brief): string {
  return brief.source?.ref ?? "";
}

/** How many more runners the job may be given to now; 0 for a job that one runner does. */
export function openCount(job: Job): number {
  if (!isReplicated(job) || job.ending !== null || job.quorum.closed || job.quorum.conclusion !== null) return 0;
  const wanted = job.brief.quorum.replicas + job.quorum.tieBreakCount;
  return Math.max(0, wanted - liveRuns(job).length - votes(job).length);
}

/** The runs whose result counts as a vote. */
export function votes(job: Job): Run[] {
  return job.runs.filter(({ vote }) => vote !== undefined);
}

/**
 * Who has what to do with a job: the runners that its secrets are sealed to, those whose votes count, those of them whose operators have no part in
 * its quorum yet, those that have one, and for an effect the runner that keeps the state files of its lane. Null: it does not matter. A runner that
 * lost its replica is only avoided, like that of any other job.
 */
export function keysOf(
  job: Job,
  { stateKeeper }: Keeping,
): Pick<MatchedJob, "sealedTo" | "trusted" | "free" | "taken" | "keeper"> {
  const { runners: sealedTo = null, kind, movesState } = job.brief;
  const keeper = kind === "effect" && movesState !== true ? stateKeeper : null;
  if (!isReplicated(job)) return { sealedTo, trusted: null, free: null, taken: [], keeper };
  const { basis } = job.quorum;
  const taken = job.runs
    .filter(({ finishedAt, vote }) => finishedAt === null || vote !== undefined)
    .map(({ runner }) => runner);
  if (basis.isDefault) return { sealedTo, trusted: null, free: null, taken, keeper };
  const signers = eligibleSigners(quorumPolicy(basis, refOf(job.brief), job.brief.quorum), Date.parse(basis.at));
  const operators = new Set(signers.filter(({ key }) => taken.includes(key)).map(({ operator }) => operator));
  const free = signers.filter(({ operator }) => !operators.has(operator)).map(({ key }) => key);
  return { sealedTo, trusted: signers.map(({ key }) => key), free, taken, keeper };
}

/** Who may get the job, or its next replica: only these, and none of those. */
export function takersOf(
  job: Job,
  lane: Keeping,
): { runners: readonly RunnerId[] | null; except: readonly RunnerId[] } {
  const { sealedTo, free, taken, keeper } = keysOf(job, lane);
  const sets = [sealedTo, free, keeper == null ? null : [keeper]].filter((set) => set !== null);
  const [first, ...rest] = sets;
  return { runners: first?.filter((key) => rest.every((set) => set.includes(key))) ?? null, except: taken };
}

/** Whether this runner may get the job, or its next replica. */
export function mayTake(job: Job, lane: Keeping, runner: RunnerId): boolean {
  const { runners, except } = takersOf(job, lane);
  return !except.includes(runner) && (runners?.includes(runner) ?? true);
}

/** The quorum as views show it; nothing for a job without one. */
export function quorumView(job: Job): { quorum?: QuorumView } {
  if (!isReplicated(job)) return {};
  const { replicas, agree, distinct = "key" } = job.brief.quorum;
  const { verdict } = job.quorum;
  return {
    quorum: {
      replicas: replicas + job.quorum.tieBreakCount,
      agree,
      distinct,
      liveCount: liveRuns(job).length,
      voteCount: votes(job).length,
      openCount: openCount(job),
      agreeing: verdict?.agreeing ?? 0,
      needed: verdict?.needed ?? agree,
      verdict: verdict?.verdict ?? "pending",
    },
  };
}

/** Whether the job is being ended: somebody stopped it, or its quorum is settled and other replicas are still alive. */
export function isStopping({ ending, quorum }: Job): boolean {
  return ending !== null || (quorum?.conclusion ?? null) !== null;
}
