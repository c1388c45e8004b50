import type { EventData, EventType, JobId, JobState, Reason } from "@plumule/protocol";
import type { EventDraft } from "../../shared/event-log.ts";
import { type Cause, isEdge } from "./edges.ts";
import { giveBack, settleLocks } from "./locks.ts";
import type { Job, Lane, Moment, State } from "./model.ts";
import { settleNeeds } from "./needs.ts";
import { SWEEP_AFTER_COUNT } from "./retention.ts";
import { settleSchedules } from "./schedules.ts";
import { withUnsigned } from "./summaries.ts";
import { settleTickets } from "./tickets.ts";
import { withBuilt } from "./unchanged.ts";
import { deploymentView, isFinal, jobView } from "./views.ts";

/** What a decision changed: the state after it, the jobs to store (final ones too), and the events that tell it. */
export type Change = { readonly state: State; readonly jobs: readonly Job[]; readonly events: readonly EventDraft[] };

/** A decision with what its caller wants to know of it. */
export type Decided<Answer> = Change & { readonly answer: Answer };

/**
 * A scratch copy of the state on which one decision works. The state that it began with is never changed, so that a refusal
 * half-way, or a transaction that is taken back, leaves nothing behind.
 */
export class Work {
  lane: Lane;
  readonly now: number;
  readonly moment: Moment;
  readonly #before: State;
  /** The schedules as the last event tells them. */
  #told: Lane["schedules"];
  readonly #jobs: Map<JobId, Job>;
  readonly #touched = new Map<JobId, Job>();
  readonly #events: EventDraft[] = [];

  constructor(state: State, moment: Moment) {
    this.#before = state;
    this.#told = state.lane.schedules;
    this.lane = state.lane;
    this.now = moment.now;
    this.moment = moment;
    this.#jobs = new Map(state.jobs.map((job) => [job.id, job]));
  }

  /** The jobs that are not final, in the order of their submission. */
  get jobs(): Job[] {
    return [...this.#jobs.values()];
  }

  /** The jobs that this decision touched, final ones too. */
  get touched(): Job[] {
    return [...this.#touched.values()];
  }

  get state(): State {
    return { lane: this.lane, jobs: this.jobs };
  }

  find(id: JobId): Job | undefined {
    return this.#jobs.get(id);
  }

  /** Replaces a job's record without changing its state. */
  put(job: Job): Job {
    this.#touched.set(job.id, job);
    if (isFinal(job)) this.#jobs.delete(job.id);
    else this.#jobs.set(job.id, job);
    return job;
  }

  /**
   * Moves a job along an edge and tells it. What ends with a state ends here: a final job has no phase, and none that left the queue has a ticket.
   * Throws for an edge that the state machine does not have: that is a fault of this code.
   */
  move(job: Job, cause: Cause, to: JobState, changes: Partial<Job> = {}): Job {
    const known = this.find(job.id) ?? this.#touched.get(job.id);
    const from = known === undefined && cause === "submitted" ? null : job.state;
    if (!isEdge(from, cause, to)) throw new Error(`no edge leads from ${from} to ${to} by "${cause}"`);
    const moved: Job = { ...job, ...changes, state: to };
    const next = isFinal(moved) ? this.#ended(moved) : this.put(moved);
    this.tell(`job.${to}`, next);
    return next;
  }

  /** Takes in a job that has ended elsewhere, and tells it. What is live, and what `If-Match` protects, stays as it is. */
  record(job: Job): void {
    if (!isEdge(null, "filled in", job.state)) throw new Error(`no job is filled in as ${job.state}`);
    this.tell(`job.${job.state}`, this.put(job));
  }

  /** Tells something about a job, with the job and the deployment as they are after it. */
  tell(type: EventType, job: Job, data: EventData = {}): void {
    this.#events.push({
      type,
      subject: `jobs/${job.id}`,
      data: { deployment: deploymentView(this.state), job: jobView(this.state, job, this.now), ...data },
    });
    this.#told = this.lane.schedules;
  }

  /** The state of a job that this decision touched, final or not. */
  stateOf(id: JobId): JobState {
    const job = this.#touched.get(id) ?? this.#jobs.get(id);
    if (job === undefined) throw new Error(`job ${id} is not part of this decision`);
    return job.state;
  }

  /** One more than any epoch before it: every older lease and ticket is stale from here on. */
  nextEpoch(): number {
    this.lane = { ...this.lane, epoch: this.lane.epoch + 1 };
    return this.lane.epoch;
  }

  /** A decision that `If-Match` protects was taken. */
  revise(): void {
    this.lane = { ...this.lane, revision: this.lane.revision + 1 };
  }

  /** The decision is taken: what follows from it by itself is added, and everything is handed over. */
  done<Answer>(answer: Answer): Decided<Answer> {
    settleNeeds(this);
    settleSchedules(this);
    settleLocks(this);
    settleTickets(this);
    this.#settleRemoval();
    const [was, is] = [deploymentView(this.#before), deploymentView(this.state)];
    if ((was.state !== is.state || this.lane.schedules !== this.#told) && this.lane.removedAt === null)
      this.#events.push({ type: "deployment.state", subject: `deployments/${is.id}`, data: { deployment: is } });
    if (this.#events.length > 0 && this.lane.updatedAt !== this.now && this.lane !== this.#before.lane)
      this.lane = { ...this.lane, updatedAt: this.now };
    return { state: this.state, jobs: [...this.#touched.values()], events: this.#events, answer };
  }

  #ended(job: Job): Job {
    const succeeded = job.state === "succeeded";
    const isLive = succeeded && makesLive(job);
    const { lane } = this;
    const unsweptCount = lane.unsweptCount + 1;
    this.lane = {
      ...lane,
      revision: lane.revision + 1,
      currentJob: isLive ? job.id : lane.currentJob,
      builtSteps: isLive ? withBuilt(lane.builtSteps, job) : lane.builtSteps,
      // A superseded job gave way before it had a result; it must not hide the last one.
      lastResult: job.state === "superseded" ? lane.lastResult : { job: job.id, state: job.state, at: this.now },
      unsweptCount,
      sweepAt: unsweptCount >= SWEEP_AFTER_COUNT ? this.now : lane.sweepAt,
      removing: lane.removing || (succeeded && job.teardown),
      ...(job.quorum?.conclusion?.state === job.state ? { unsigned: withUnsigned(lane, [job.id], this.now) } : {}),
    };
    return this.put({
      // Nobody knows what an effect has left behind whose end was not seen.
      ...(job.state === "unknown" ? job : giveBack(this, job)),
      phase: null,
      finishedAt: this.now,
      waiting: null,
      ready: null,
      command: null,
      ending: null,
    });
  }

  /** A deployment whose removal was asked for goes when nothing is left to do; its tombstone stays. */
  #settleRemoval(): void {
    if (!this.lane.removing || this.lane.removedAt !== null || this.#jobs.size > 0) return;
    this.lane = {
      ...this.lane,
      removing: false,
      removedAt: this.now,
      updatedAt: this.now,
      currentJob: null,
      schedules: [],
      awaited: [],
      builtSteps: [],
      sweepAt: this.now,
    };
    const deployment = deploymentView(this.state);
    this.#events.push({ type: "deployment.deleted", subject: `deployments/${deployment.id}`, data: { deployment } });
  }
}

/** A reason with its sentence. */
export function reason(code: Reason["code"], detail: string): Reason {
  return { code, detail };
}

/** Whether the success of a job is what is live then. A schedule runs parts of what is live already, and a job that only read what is to be done has made nothing. */
function makesLive({ teardown, brief, steps }: Job): boolean {
  return !teardown && brief.schedule === undefined && steps === undefined;
}
