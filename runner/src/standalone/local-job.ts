import {
  type Assignment,
  deploymentIdSchema,
  formatTime,
  type JobId,
  jobIdSchema,
  type JobState,
  type JobWork,
  LIMITS,
  type Millis,
  type ResultBody,
  resultBodySchema,
  runIdOf,
  runIdSchema,
  sha256Schema,
  submitBodySchema,
  timeSchema,
  uuidSchema,
} from "@plumule/protocol";
import * as z from "zod";

/**
 * A job that the runner gives itself. `waiting` until there is room, `given` until its run's first heartbeat, `running`, and `ended`. A persisted contract:
 * later versions read what earlier ones wrote.
 */
export const localJobSchema = z.object({
  job: jobIdSchema,
  deployment: deploymentIdSchema,
  /** Of the work (`jobIdentity`): a job that has it is not done again. */
  identity: sha256Schema,
  spec: submitBodySchema,
  taskSha256: sha256Schema,
  configurationSha256: sha256Schema.nullable(),
  createdAt: timeSchema,
  state: z.enum(["waiting", "given", "running", "ended"]),
  attempt: z.int().min(1),
  run: runIdSchema,
  /** The key of the poll that it was given to, so that the same one gets it again, and when that was, ms. */
  given: z.object({ requestKey: uuidSchema, at: z.int() }).nullable(),
  /** Not before this, ms. */
  readyAt: z.int(),
  startedAt: timeSchema.nullable(),
  /** How it ended; null while it has not, and for work that the broker has. */
  result: resultBodySchema.nullable(),
  /** The broker's job of the same work, which stands for this one. */
  elsewhere: jobIdSchema.nullable(),
  /** What its job COB says. */
  said: z.enum(["nothing", "started", "ended"]),
  /** The broker has been told, or there is nothing to tell it. */
  told: z.boolean(),
});
export type LocalJob = z.output<typeof localJobSchema>;

/** The work of a job. Throws for a job without a commit, which nothing follows. */
export function workOf({
  spec: { source },
  taskSha256,
  configurationSha256,
}: Pick<LocalJob, "spec" | "taskSha256" | "configurationSha256">): JobWork {
  if (source === undefined) throw new Error("a job that is about no commit has no identity");
  const { repository, commit } = source;
  return { repository, commit, taskSha256, configurationSha256 };
}

/** The state of a job in the words of a broker's. */
export function stateOf({ state, result, elsewhere }: LocalJob): JobState {
  if (elsewhere !== null) return "superseded";
  if (state !== "ended" || result === null)
    return state === "running" ? "running" : state === "given" ? "assigned" : "queued";
  return result.outcome === "refused" ? "failed" : result.outcome;
}

/** Between two tries of a run that found no start, ms: what it needs, such as the commit, may come in meanwhile. */
const AGAIN_MS = 30_000;

/** Whether a run has said nothing about its job: nothing ran, or the runner was stopped. */
export function saysNothing({ outcome, reason }: Pick<ResultBody, "outcome" | "reason">): boolean {
  return outcome === "refused" || (outcome === "cancelled" && reason?.code === "runner-stopped");
}

/** The job after the result of its run: ended, or once more where the run said nothing about it, as often as a broker would try. */
export function afterResult(job: LocalJob, result: ResultBody, now: Millis): LocalJob {
  // A refusal stays one: what the task asks for is not here.
  const mayPass = saysNothing(result) && result.reason?.code !== "refused";
  if (mayPass && job.attempt < LIMITS.attempts) return again(job, now + AGAIN_MS);
  return { ...job, state: "ended", given: null, result };
}

/** The job once more, with another run: what the earlier one still writes changes nothing. */
export function again(job: LocalJob, readyAt: Millis): LocalJob {
  const attempt = job.attempt + 1;
  return { ...job, state: "waiting", attempt, run: runIdOf(job.job, attempt), given: null, readyAt };
}

/** The job that is to be begun next: the oldest whose deployment is at rest, as one deployment does one thing at a time. */
export function nextJob(jobs: readonly LocalJob[], now: Millis): LocalJob | null {
  const busy = new Set(jobs.flatMap(({ state, deployment }) => (isBegun(state) ? [deployment] : [])));
  const ready = jobs.filter(
    ({ state, deployment, readyAt }) => state === "waiting" && readyAt <= now && !busy.has(deployment),
  );
  return ready.toSorted(byId)[0] ?? null;
}

/** Jobs that were given and never begun: whoever got them has lost them. */
export function lostJobs(jobs: readonly LocalJob[], now: Millis): LocalJob[] {
  return jobs.filter(({ state, given }) => state === "given" && (given?.at ?? 0) + LIMITS.acknowledgeMs <= now);
}

/** What the runner is told to do: an assignment under no lease, whose epoch is 0. */
export function assignmentOf(namespace: string, job: LocalJob, requestKey: string, now: Millis): Assignment {
  const { deployment, run, attempt, spec, taskSha256, configurationSha256 } = job;
  const { runMs = LIMITS.runMs, silenceMs = LIMITS.silenceMs, graceMs = LIMITS.graceMs } = spec.timeouts ?? {};
  return {
    namespace,
    deployment,
    job: job.job,
    run,
    attempt,
    epoch: 0,
    leaseToken: "",
    leaseMs: LIMITS.leaseMs,
    acknowledgeMs: LIMITS.acknowledgeMs,
    requestKey,
    spec,
    teardown: false,
    taskSha256,
    configurationSha256,
    limits: { logBytes: LIMITS.logBytes, runMs, silenceMs, graceMs },
    brokerTime: formatTime(now),
  };
}

/** Jobs of which nothing more is to be done, beyond the newest `keep`. Without a broker there is nobody to tell yet. */
export function settledJobs(jobs: readonly LocalJob[], keep: number, hasBroker: boolean): LocalJob[] {
  const settled = jobs.filter(({ state, said, told }) => state === "ended" && said === "ended" && (told || !hasBroker));
  return settled.toSorted(byId).slice(0, Math.max(0, settled.length - keep));
}

/** Ids sort by the time at which they were made. */
function byId(one: { job: JobId }, other: { job: JobId }): number {
  return one.job < other.job ? -1 : 1;
}

function isBegun(state: LocalJob["state"]): boolean {
  return state === "given" || state === "running";
}
