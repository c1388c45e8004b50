import {
  LIMITS,
  jobCreatedAt,
  makeJobId,
  refuse,
  type Interrupt,
  type JobId,
  type Millis,
  type Mode,
  type Reason,
  type Refusal,
  type SubmitBody,
  type TrustBasis,
} from "@plumule/protocol";
import type { Ticket as PoolTicket } from "../../pool/calls.ts";
import type { Actor } from "../calls.ts";
import { interrupt } from "./cancel.ts";
import { grant, type Leased, revoke } from "./lease.ts";
import {
  type Brief,
  isOccupying,
  type Job,
  type Lane,
  type LeaseOffer,
  type Moment,
  poolOf,
  type State,
  type StepRecord,
  timeoutsOf,
} from "./model.ts";
import { newQuorum, quorumFault } from "./quorum.ts";
import { mayTake } from "./replicas.ts";
import { checkRevision } from "./revision.ts";
import { offerable, poolTicket } from "./tickets.ts";
import { waitingOf } from "./views.ts";
import { type Decided, reason, Work } from "./work.ts";

/** What a submit brings. `random`: eight bytes for the job's id. `lease`: a runner that was set aside for this very job, or null. */
export type Submission = {
  /** When it came in. It stays the same when the submit is decided again, and so does the id made of it. */
  receivedAt: Millis;
  random: Uint8Array;
  brief: Brief;
  taskSha256: string;
  configurationSha256: string | null;
  rerunOf: JobId | null;
  /** The job whose schedule made this one. */
  scheduledBy?: JobId;
  teardown: boolean;
  ifMatch: string | null;
  lease: (LeaseOffer & { job: JobId }) | null;
  /** Whom the namespace trusts, for a job with a quorum. */
  basis?: TrustBasis | null;
  /** The step of a task file that it does once more, and those behind it that were not run because of that step. */
  step?: StepRecord;
  followers?: readonly Follower[];
};

/** A step that is queued together with the one that it needs. `random` as of a submission. */
export type Follower = Required<Pick<Submission, "brief" | "taskSha256" | "configurationSha256" | "step">> & {
  rerunOf: JobId;
  body: SubmitBody;
  random: Uint8Array;
};

/**
 * What a submit came to. `joined`: an equal job was there already. `offer`: the job could start now, if the pool sets a runner aside for this
 * ticket and the submit is decided again with its lease. `granted`: it did. `followers`: what was queued with it, to be stored with these bodies.
 */
export type Submitted = {
  job: JobId;
  joined: boolean;
  superseded: JobId[];
  position: number;
  offer: { pool: string; ticket: PoolTicket } | null;
  granted: Leased | null;
  followers: { job: JobId; spec: SubmitBody }[];
};

/** The id of the job that a submission makes in a lane. The time in it is its place, and later than that of any other. */
export function idOf({ lastJobAt }: Lane, { receivedAt, random }: Submission): JobId {
  return makeJobId(Math.max(receivedAt, lastJobAt + 1), random);
}

/** Accepts a job into the lane, as its mode says. */
export function submit(state: State, input: Submission, moment: Moment): Decided<Submitted> | Refusal {
  const { lane } = state;
  const { brief } = input;
  if (lane.removedAt !== null)
    return refuse("gone", `Deployment ${lane.deployment} was removed.`, {
      next: "Choose another name: that of a removed deployment is not used again.",
    });
  const fault = checkRevision(state, input.ifMatch) ?? quorumFault(brief, input.basis ?? null);
  if (fault !== null) return fault;
  const leaving = state.jobs.find((job) => job.teardown);
  if (lane.removing || leaving !== undefined)
    return refuse(
      "busy",
      `Deployment ${lane.deployment} is being torn down${leaving === undefined ? "" : ` by job ${leaving.id}`}.`,
    );
  const again = againFault(state, input.step);
  if (again !== null) return again;
  const work = new Work(state, moment);
  const equal = work.jobs.find(
    (job) => brief.dedupeKey !== undefined && job.brief.dedupeKey === brief.dedupeKey && job.state !== "cancelling",
  );
  if (equal !== undefined) return join(work, equal);
  const mode: Mode = brief.mode ?? "queue";
  const [first] = work.jobs;
  if (mode === "reject" && first !== undefined) return refuse("busy", `Job ${first.id} is ${first.state}.`);

  const id = idOf(lane, input);
  const createdAt = jobCreatedAt(id);
  const before = work.jobs;
  const superseded = mode === "replace" || mode === "latest" ? supersede(work, id, mode, brief) : [];
  const { followers = [] } = input;
  const full = roomFault(work, brief, 1 + followers.length);
  if (full !== null) return full;
  work.lane = {
    ...work.lane,
    lastJobAt: createdAt + followers.length,
    createdAt: lane.createdAt ?? moment.now,
    sweepAt: lane.sweepAt ?? moment.now + LIMITS.idempotencyMs,
  };
  work.revise();
  const replaced = before.filter((job) => superseded.includes(job.id));
  const job = work.move(
    newJob(input, id, createdAt, moment.actor, burstOf(brief, replaced, moment)),
    "submitted",
    brief.hold === true ? "held" : "queued",
  );
  const behind = followers.map((one, index): Submitted["followers"][number] => {
    const at = createdAt + 1 + index;
    const made = newJob({ ...one, teardown: false }, makeJobId(at, one.random), at, moment.actor, NO_BURST);
    return { job: work.move(made, "submitted", "queued").id, spec: one.body };
  });
  const head = offerable(work.jobs, moment.now)?.id === job.id ? job : null;
  const granted =
    head !== null && input.lease?.job === id && mayTake(head, work.lane, input.lease.runner)
      ? grant(work, head, input.lease)
      : null;
  const offer =
    head === null || granted !== null
      ? null
      : { pool: poolOf(brief), ticket: poolTicket(work.lane, job, work.lane.epoch) };
  return work.done({
    job: id,
    joined: false,
    superseded,
    position: waitingOf(work.jobs, granted?.job ?? job, moment.now)?.position ?? 0,
    offer,
    granted,
    followers: behind,
  });
}

const NO_BURST = { burstAt: null, ready: null };

/** A step that is there already, and has not ended, is not done beside itself. */
function againFault({ jobs }: State, step: StepRecord | undefined): Refusal | null {
  if (step === undefined) return null;
  const same = jobs.find((job) => job.step?.parent === step.parent && job.step.name === step.name);
  return same === undefined
    ? null
    : refuse("wrong-state", `Step \`${step.name}\` has not ended: job ${same.id} is ${same.state}.`);
}

function roomFault({ jobs }: Work, { stranger }: Brief, count: number): Refusal | null {
  const strangersCount = jobs.filter((job) => job.brief.stranger !== undefined).length;
  if (stranger !== undefined && strangersCount >= LIMITS.strangersJobs)
    return refuse(
      "quota-exceeded",
      `${LIMITS.strangersJobs} jobs of strangers wait in this deployment, which is the limit.`,
    );
  return jobs.length + count <= LIMITS.pendingJobs
    ? null
    : refuse("quota-exceeded", `${LIMITS.pendingJobs} jobs of this deployment have not ended, which is the limit.`);
}

function join(work: Work, job: Job): Decided<Submitted> {
  const { debounce } = job.brief;
  if (debounce !== undefined && job.ready?.reason === "debounce" && job.ready.at > work.now)
    work.put({ ...job, ready: settling(debounce, job.burstAt ?? job.createdAt, work.now) });
  const position = waitingOf(work.jobs, job, work.now)?.position ?? 0;
  return work.done({ job: job.id, joined: true, superseded: [], position, offer: null, granted: null, followers: [] });
}

/** A burst that goes on is one burst: its quiet begins again, its longest wait does not. */
function settling(
  debounce: { quietMs: number; maxMs: number },
  burstAt: Millis,
  now: Millis,
): NonNullable<Job["ready"]> {
  return { at: Math.min(now + debounce.quietMs, burstAt + debounce.maxMs), reason: "debounce" };
}

function burstOf(brief: Brief, replaced: readonly Job[], { now }: Moment): Pick<Job, "burstAt" | "ready"> {
  if (brief.debounce === undefined) return NO_BURST;
  const burstAt = Math.min(now, ...replaced.flatMap((job) => (job.burstAt === null ? [] : [job.burstAt])));
  return { burstAt, ready: settling(brief.debounce, burstAt, now) };
}

/**
 * Makes room for a newer job: what waits is superseded; what runs is interrupted by `replace`, as far as the newer job may. A stranger's
 * takes the place of that stranger's own alone: a push that nobody has looked at stops nothing of others.
 */
function supersede(work: Work, by: JobId, mode: "replace" | "latest", { interrupt: wanted, stranger }: Brief): JobId[] {
  const how: Interrupt = wanted ?? "before-apply";
  const why: Reason = reason("superseded", `Job ${by} took its place.`);
  const superseded: JobId[] = [];
  for (const job of work.jobs) {
    if (stranger !== undefined && job.brief.stranger?.author !== stranger.author) continue;
    if (!isOccupying(job))
      work.move(revoke(work, job, why), "replaced", "superseded", { reason: why, supersededBy: by });
    else if (
      mode === "latest" ||
      !interrupt(work, job, { cause: "replaced", state: "superseded", how, why, supersededBy: by })
    )
      continue;
    superseded.push(job.id);
  }
  return superseded;
}

/** A job as it begins, before it is queued or held. */
export function newJob(
  input: Pick<
    Submission,
    "brief" | "taskSha256" | "configurationSha256" | "teardown" | "rerunOf" | "basis" | "scheduledBy" | "step"
  >,
  id: JobId,
  createdAt: Millis,
  actor: Actor,
  burst: Pick<Job, "burstAt" | "ready">,
): Job {
  return {
    id,
    state: "queued",
    phase: input.brief.hold === true ? null : "queued",
    brief: input.brief,
    taskSha256: input.taskSha256,
    configurationSha256: input.configurationSha256,
    teardown: input.teardown,
    actor,
    createdAt,
    startedAt: null,
    finishedAt: null,
    queuedAt: createdAt,
    queueUntil: createdAt + timeoutsOf(input.brief).queueMs,
    ...burst,
    runs: [],
    avoid: [],
    ticket: null,
    waiting: null,
    progress: null,
    reason: null,
    supersededBy: null,
    rerunOf: input.rerunOf,
    ...(input.scheduledBy === undefined ? {} : { scheduledBy: input.scheduledBy }),
    ...(input.step === undefined ? {} : { step: input.step }),
    ending: null,
    command: null,
    ...newQuorum(input.brief, input.basis ?? null, createdAt),
  };
}

/**
 * Asks for the deployment's removal without a teardown: what waits is cancelled, what runs may end, then it goes.
 */
export function remove(
  state: State,
  input: { ifMatch: string | null; why: Reason },
  moment: Moment,
): Decided<null> | Refusal {
  const { lane } = state;
  if (lane.removedAt !== null) return refuse("gone", `Deployment ${lane.deployment} was removed.`);
  const mismatch = checkRevision(state, input.ifMatch);
  if (mismatch !== null) return mismatch;
  const work = new Work(state, moment);
  for (const job of work.jobs)
    if (!isOccupying(job)) work.move(revoke(work, job, input.why), "cancelled", "cancelled", { reason: input.why });
  work.lane = { ...work.lane, removing: true };
  work.revise();
  return work.done(null);
}
