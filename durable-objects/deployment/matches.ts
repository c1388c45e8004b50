import {
  isRefusal,
  type JobMatch,
  jobChecks,
  type JobView,
  matchRunners,
  type Millis,
  refuse,
  type Refusal,
  type RunnerId,
  type RunnerView,
} from "@plumule/protocol";
import { within } from "../shared/within.ts";
import type { Answers } from "./answers.ts";
import { type Job, type Lane, poolOf } from "./core/model.ts";
import { keysOf } from "./core/replicas.ts";

/** A page of the fleet, as the namespace lists it. */
export type ListRunners = (call: {
  cursor: string | null;
  limit: number;
}) => Promise<{ items: RunnerView[]; nextCursor: string | null } | Refusal>;

/** Runners of one page, and pages that are looked at: a person reads the nearest few of them. */
const PAGE = 200;
const PAGES = 5;
/** A namespace that does not answer within this is away, ms. */
const LIST_MS = 10_000;

/** Why a job and the runners of its namespace do not meet; `runner` asks about that one alone. `view` is the job as it is shown now. */
export async function matchJob(
  { view, runner, limit }: { view: JobView; runner: RunnerId | null; limit: number },
  answers: Answers,
  list: ListRunners,
  now: Millis,
): Promise<JobMatch | Refusal> {
  const listed = await listRunnersOf(list, runner);
  if (isRefusal(listed)) return listed;
  const job = answers.find(view.id);
  if (isRefusal(job)) return job;
  if (runner !== null && listed.length === 0) return refuse("not-found", `There is no runner ${runner}.`);
  return {
    job: job.id,
    checks: jobChecks(view, job.queueUntil, now),
    runners: matchRunners(matchedJob(job, answers.lane()), listed).slice(0, limit),
    runnerCount: listed.length,
  };
}

function matchedJob(job: Job, lane: Lane): Parameters<typeof matchRunners>[0] {
  const { requires = {}, protocol } = job.brief;
  const wants = { ...requires, ...(protocol === undefined ? {} : { protocol }) };
  return { wants, pool: poolOf(job.brief), avoid: job.avoid, ...keysOf(job, lane) };
}

async function listRunnersOf(list: ListRunners, runner: RunnerId | null): Promise<RunnerView[] | Refusal> {
  const found: RunnerView[] = [];
  let cursor: string | null = null;
  for (let page = 0; page < PAGES; page += 1) {
    const answer: Awaited<ReturnType<ListRunners>> = await within(LIST_MS, list({ cursor, limit: PAGE }));
    if (isRefusal(answer)) return answer;
    found.push(...answer.items.filter(({ id }) => runner === null || id === runner));
    cursor = answer.nextCursor;
    if (cursor === null) break;
  }
  return found;
}
