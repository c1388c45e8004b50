import { eligibleSigners, quorumPolicy, type Quorum, type QuorumView, type RunnerId } from "@plumule/protocol";
import { type Brief, type Job, liveRuns, type QuorumRecord, type Run } from "./model.ts";

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
 * Who may get the job, or its next replica: of the runners that its secrets are sealed to and of those whose votes count, all but those that have
 * a part in it already, and their operators' other machines. A runner that lost its replica is only avoided, like that of any other job.
 */
export function takersOf(job: Job): { runners: readonly RunnerId[] | null; except: readonly RunnerId[] } {
  const able = job.brief.runners ?? null;
  if (!isReplicated(job)) return { runners: able, except: [] };
  const { basis } = job.quorum;
  const taken = job.runs
    .filter(({ finishedAt, vote }) => finishedAt === null || vote !== undefined)
    .map(({ runner }) => runner);
  if (basis.isDefault) return { runners: able, except: taken };
  const signers = eligibleSigners(quorumPolicy(basis, refOf(job.brief), job.brief.quorum), Date.parse(basis.at));
  const operators = new Set(signers.filter(({ key }) => taken.includes(key)).map(({ operator }) => operator));
  const free = signers.filter(({ operator }) => !operators.has(operator)).map(({ key }) => key);
  return { runners: able === null ? free : free.filter((key) => able.includes(key)), except: taken };
}

/** Whether this runner may get the job, or its next replica. */
export function mayTake(job: Job, runner: RunnerId): boolean {
  const { runners, except } = takersOf(job);
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
