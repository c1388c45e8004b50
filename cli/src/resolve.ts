import {
  attemptOfRun,
  commitSchema,
  deploymentIdSchema,
  type DeploymentSnapshot,
  getDeployment,
  getJob,
  isFinalJobState,
  type JobDetail,
  jobIdSchema,
  type JobId,
  jobOfRun,
  type JobView,
  listJobs,
  LIMITS,
  type RunId,
  runIdSchema,
} from "@plumule/protocol";
import { findCommit, readCheckout } from "./checkout.ts";
import type { Connection } from "./connection.ts";
import { EXIT } from "./exit-codes.ts";
import { type Failure, isFailure, misuse } from "./failure.ts";
import { shortId } from "./print.ts";

/** What an argument means. */
export type Target =
  | { kind: "job"; job: JobId }
  | { kind: "run"; run: RunId; job: JobId }
  | { kind: "deployment"; deployment: string; snapshot: DeploymentSnapshot }
  | { kind: "commit"; commit: string };

/** What the look of an argument tells, before the broker is asked. A prefix of a run's id is one of its job's too, `attempt` aside. */
export type Guess =
  | { kind: "job"; job: JobId }
  | { kind: "run"; run: RunId; job: JobId }
  | { kind: "commit"; commit: string }
  | { kind: "prefix"; prefix: string; attempt: number | null }
  | { kind: "name" };

/** Pages of jobs that are searched for a prefix: a thousand jobs. */
const PAGES = 5;
/** Characters from which hex digits are taken for the beginning of an id. */
const PREFIX_CHARACTERS = 4;

/** Tells by its look what an argument may be. */
export function guess(text: string): Guess {
  if (jobIdSchema.safeParse(text).success) return { kind: "job", job: text };
  if (runIdSchema.safeParse(text).success) return { kind: "run", run: text, job: jobOfRun(text) };
  if (commitSchema.safeParse(text).success) return { kind: "commit", commit: text };
  const hyphens = /^[0-9a-f]{0,8}(?:-[0-9a-f]{0,4}){0,3}(?:-[0-9a-f]{0,12})?$/.test(text);
  if (!hyphens || text.length < PREFIX_CHARACTERS || (text.length > 8 && text[8] !== "-")) return { kind: "name" };
  const attempt = text.length < 18 ? 0 : Number.parseInt(text.slice(15, 18), 16);
  const prefix = attempt === 0 ? text : `${text.slice(0, 15)}000${text.slice(18)}`;
  return { kind: "prefix", prefix, attempt: attempt === 0 ? null : attempt };
}

/** Finds what an argument means: an id or the unique beginning of one, a deployment, or a commit by any name that git knows here. */
export async function resolveTarget(connection: Connection, text: string, cwd: string): Promise<Target | Failure> {
  const guessed = guess(text);
  if (guessed.kind === "prefix") {
    const found = await findByPrefix(connection, guessed.prefix, guessed.attempt);
    if (found !== null) return found;
  } else if (guessed.kind !== "name") return guessed;
  if (text !== "." && deploymentIdSchema.safeParse(text).success) {
    const answer = await connection.ask(getDeployment, { params: { ns: connection.ns, deployment: text } });
    if (!isFailure(answer) && answer.status === 200)
      return { kind: "deployment", deployment: text, snapshot: answer.body };
    if (isFailure(answer) && answer.exit !== EXIT.notFound) return answer;
  }
  const commit = await findCommit(cwd, text === "." ? "HEAD" : text);
  if (commit !== null) return { kind: "commit", commit };
  return {
    exit: EXIT.notFound,
    what: `Nothing here is called ${text}`,
    why: `no job, run or deployment of ${connection.ns} has that id, and git knows no such commit here`,
    next: "See what there is: `plumule ls`, `plumule ls deployments`.",
  };
}

/** A job that an argument means, with its run when the argument names one. */
export type FoundJob = JobDetail & { run: RunId | null };

/** The job that an argument means: of a run, its job; of a deployment or commit, the newest. Without argument the newest of HEAD, else of all. */
export async function resolveJob(
  connection: Connection,
  text: string | undefined,
  cwd: string,
): Promise<FoundJob | Failure> {
  const found = text === undefined ? await newestHere(connection, cwd) : await jobOfArgument(connection, text, cwd);
  if (isFailure(found)) return found;
  const answer = await connection.ask(getJob, { params: { ns: connection.ns, job: found.job } });
  return isFailure(answer) ? answer : { ...answer.body, run: found.run };
}

async function jobOfArgument(
  connection: Connection,
  text: string,
  cwd: string,
): Promise<{ job: JobId; run: RunId | null } | Failure> {
  const target = await resolveTarget(connection, text, cwd);
  if (isFailure(target)) return target;
  switch (target.kind) {
    case "job":
      return { job: target.job, run: null };
    case "run":
      return target;
    case "deployment": {
      const job = newestOf(target.snapshot.jobs);
      return job === undefined ? nothing(`The deployment ${target.deployment} has no job`) : { job: job.id, run: null };
    }
    case "commit": {
      const job = await newest(connection, target.commit);
      if (isFailure(job)) return job;
      return job === null ? nothing(`No job is about the commit ${target.commit.slice(0, 12)}`) : { job, run: null };
    }
  }
}

async function newestHere(connection: Connection, cwd: string): Promise<{ job: JobId; run: null } | Failure> {
  const checkout = await readCheckout(cwd);
  const ofHead = checkout === null ? null : await newest(connection, checkout.commit);
  const job = ofHead ?? (await newest(connection));
  if (isFailure(job)) return job;
  return job === null ? nothing(`There is no job in ${connection.ns} yet`) : { job, run: null };
}

async function newest(connection: Connection, commit?: string): Promise<JobId | Failure | null> {
  const query = { limit: 1, ...(commit === undefined ? {} : { commit }) };
  const answer = await connection.ask(listJobs, { params: { ns: connection.ns }, query });
  if (isFailure(answer)) return answer;
  const [job] = answer.body.items;
  // Of the jobs that a task file became, the one that stands for all of them.
  return job?.step?.parent ?? job?.id ?? null;
}

/** The job of a lane that matters most to a watcher: the last that is not final, else the last that was; a step that was not run says less than one that was. */
export function newestOf(jobs: readonly JobView[]): JobView | undefined {
  const sorted = jobs.toSorted((left, right) => (left.id < right.id ? -1 : 1));
  return (
    sorted.findLast(({ state }) => !isFinalJobState(state)) ??
    sorted.findLast(({ step, run }) => step === undefined || run !== null) ??
    sorted.at(-1)
  );
}

async function findByPrefix(
  connection: Connection,
  prefix: string,
  attempt: number | null,
): Promise<Target | Failure | null> {
  const found: JobId[] = [];
  let cursor: string | null = null;
  for (let page = 0; page < PAGES; page += 1) {
    const query: { limit: number; cursor?: string } = {
      limit: LIMITS.listPage,
      ...(cursor === null ? {} : { cursor }),
    };
    const answer = await connection.ask(listJobs, { params: { ns: connection.ns }, query });
    if (isFailure(answer)) return answer;
    found.push(...answer.body.items.map(({ id }) => id).filter((id) => id.startsWith(prefix)));
    cursor = answer.body.nextCursor;
    if (cursor === null) break;
  }
  const [job, second] = found;
  if (job === undefined) return null;
  if (second !== undefined)
    return misuse(
      `${found.length} jobs begin with ${prefix}`,
      "Give more of the id.",
      found.slice(0, 10).map((id) => ({ pointer: shortId(id), detail: id })),
    );
  return attempt === null ? { kind: "job", job } : runOf(connection, job, attempt);
}

async function runOf(connection: Connection, job: JobId, attempt: number): Promise<Target | Failure> {
  const answer = await connection.ask(getJob, { params: { ns: connection.ns, job } });
  if (isFailure(answer)) return answer;
  const run = answer.body.runs.find(({ id }) => attemptOfRun(id) === attempt);
  return run === undefined
    ? nothing(`The job ${shortId(job)} has no run ${attempt}`)
    : { kind: "run", run: run.id, job };
}

function nothing(what: string): Failure {
  return { exit: EXIT.notFound, what, next: "See what there is: `plumule ls`." };
}
