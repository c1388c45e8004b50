import {
  digestsOf,
  isRefusal,
  refuse,
  type CancelAnswer,
  type CancelBody,
  type DeploymentView,
  type JobId,
  type JobView,
  type Refusal,
  type Stranger,
  type SubmitAnswer,
  type SubmitBody,
} from "@plumule/protocol";
import { cursorAt } from "../shared/cursor.ts";
import { checkApproval } from "./approvals.ts";
import { briefOf, rerunBody, scheduledBody, secretsFault, teardownBody } from "./bodies.ts";
import type { DeploymentCalls } from "./calls.ts";
import { approve, cancel, resolve } from "./core/cancel.ts";
import type { Job, Lane, Moment, Schedule, State } from "./core/model.ts";
import { fireSchedule, pauseSchedule } from "./core/firing.ts";
import { comingBack } from "./core/rerun.ts";
import { type Follower, remove, submit, type Submission, type Submitted } from "./core/submit.ts";
import { deploymentView, jobView } from "./core/views.ts";
import { type Decided, reason } from "./core/work.ts";
import { BROKER } from "./ledger.ts";
import type { Parts } from "./parts.ts";
import type { Request as Asked } from "./requests.ts";
import type { StandaloneRuns } from "./standalone.ts";

type Origin = Pick<Submission, "teardown" | "rerunOf" | "step" | "followers"> & { stranger: Stranger | null };
type CallOf<Name extends keyof DeploymentCalls> = Parameters<DeploymentCalls[Name]>[0];

/** What people, and triggers in their name, ask of a deployment. */
export class Decisions {
  readonly #parts: Parts;
  readonly #standalone: StandaloneRuns;
  readonly #waitUntil: (work: Promise<unknown>) => void;

  constructor(parts: Parts, standalone: StandaloneRuns, waitUntil: (work: Promise<unknown>) => void) {
    this.#parts = parts;
    this.#standalone = standalone;
    this.#waitUntil = waitUntil;
  }

  submit({ actor, body, guard, dryRun, stranger = null }: CallOf<"submit">): Promise<SubmitAnswer | Refusal> {
    const asked: Asked = { actor, guard, operation: "submit" };
    return this.#enqueue(asked, body, { teardown: false, rerunOf: null, stranger }, dryRun);
  }

  async rerun({ actor, job: id, guard }: CallOf<"rerun">): Promise<SubmitAnswer | Refusal> {
    const job = this.#parts.answers.find(id);
    if (isRefusal(job)) return job;
    const spec = this.#parts.store.spec(id);
    if (spec === null || job.teardown)
      return refuse("wrong-state", `Job ${id} is a teardown: delete the deployment again.`);
    const asked: Asked = { actor, guard, operation: `rerun ${id}` };
    const { ledger, requests } = this.#parts;
    const part = requests.recall<SubmitAnswer>(asked, ledger.moment(actor).now) ?? this.#partOf(job);
    if (isRefusal(part) || "cursor" in part) return part;
    return this.#enqueue(
      asked,
      rerunBody(spec),
      { teardown: false, rerunOf: id, stranger: strangerIn(job), ...part },
      false,
    );
  }

  /** What a job is of its task file, and what comes back with it. That of a stranger is looked at again, for itself. */
  #partOf(job: Job): Pick<Submission, "step" | "followers"> | Refusal {
    const { answers, store } = this.#parts;
    const { step, brief } = job;
    const parent = step === undefined ? null : store.job(step.parent);
    const back = comingBack(job, parent === null ? [] : answers.stepsOf(parent));
    if (isRefusal(back)) return back;
    if (step === undefined || parent === null || brief.stranger !== undefined) return {};
    const followers = back.flatMap((one): Follower[] => {
      const body = store.spec(one.id);
      if (body === null || one.step === undefined) return [];
      const { taskSha256, configurationSha256 } = one;
      const random = crypto.getRandomValues(new Uint8Array(8));
      return [{ brief: briefOf(body), taskSha256, configurationSha256, step: one.step, rerunOf: one.id, body, random }];
    });
    return { step, followers };
  }

  async remove({ actor, body, guard }: CallOf<"remove">): Promise<SubmitAnswer | DeploymentView | Refusal> {
    const { answers, ledger, requests, store } = this.#parts;
    const asked: Asked = { actor, guard, operation: "remove" };
    const moment = ledger.moment(actor);
    const known = requests.recall<SubmitAnswer | DeploymentView>(asked, moment.now) ?? answers.refusal();
    if (known !== null) return known;
    if (body.task !== undefined) {
      const { currentJob } = ledger.state().lane;
      const live = currentJob === null ? null : store.spec(currentJob);
      const made = currentJob === null ? null : answers.find(currentJob);
      const stranger = made === null || isRefusal(made) ? null : strangerIn(made);
      const spec = teardownBody(body.task, live, body.reason);
      return this.#enqueue(asked, spec, { teardown: true, rerunOf: null, stranger }, false);
    }
    const why = reason("deleted", body.reason ?? "The deployment was deleted.");
    const decided = remove(ledger.state(), { ifMatch: guard.ifMatch, why }, moment);
    return this.#answerOnce(asked, moment, decided, (_, state) => deploymentView(state));
  }

  /** Cancels one job, with the steps that its task file became, or all that are not final (null). */
  cancel({ actor, guard, body }: CallOf<"cancelAll">, id: JobId | null): CancelAnswer | Refusal {
    const { answers, ledger, requests } = this.#parts;
    const asked: Asked = { actor, guard, operation: `cancel ${id ?? "all"}` };
    const moment = ledger.moment(actor);
    const known = requests.recall<CancelAnswer>(asked, moment.now) ?? answers.refusal();
    if (known !== null) return known;
    const job = id === null ? null : answers.find(id);
    if (isRefusal(job)) return job;
    if (job !== null && !ledger.state().jobs.some((one) => one === job || one.step?.parent === job.id))
      return refuse("already-final", `Job ${job.id} has ended: ${job.state}.`);
    return this.#answerOnce(
      asked,
      moment,
      cancel(ledger.state(), cancellation(asked, id, body), moment),
      (cancelled, state) => ({
        cancelled,
        alreadyFinal: [],
        deployment: deploymentView(state),
      }),
    );
  }

  async approve({ actor, job: id, commit, approval, plan }: CallOf<"approve">): Promise<JobView | Refusal> {
    const { answers, ledger } = this.#parts;
    const job = answers.find(id);
    if (isRefusal(job)) return job;
    const approver = approval === undefined ? null : await checkApproval(approval, ledger.state().lane, job);
    if (isRefusal(approver)) return approver;
    const moment = ledger.moment(actor);
    const approved =
      approver === null || approval === undefined ? null : { approver, at: moment.now, envelope: approval.envelope };
    return this.#commitJob(approve(ledger.state(), { job: id, commit, approved, plan: plan ?? null }, moment), moment);
  }

  resolve({ actor, job: id, outcome, reason: why }: CallOf<"resolve">): JobView | Refusal {
    const { answers, ledger } = this.#parts;
    const job = answers.find(id);
    if (isRefusal(job)) return job;
    const moment = ledger.moment(actor);
    return this.#commitJob(
      resolve(ledger.state(), { job, outcome, detail: why ?? `${actor} says that it ${outcome}.` }, moment),
      moment,
    );
  }

  setSchedule({ actor, name, paused }: CallOf<"setSchedule">): DeploymentView | Refusal {
    const { answers, ledger } = this.#parts;
    const { lane } = ledger.state();
    const refusal =
      answers.refusal() ?? (lane.schedules.some((one) => one.name === name) ? null : noSchedule(lane, name));
    if (refusal !== null) return refusal;
    const moment = ledger.moment(actor);
    const decided = pauseSchedule(ledger.state(), { name, paused }, moment);
    ledger.commit(decided, moment);
    return deploymentView(decided.state);
  }

  /** A schedule is due. It acts for whoever submitted the job that it repeats. */
  async keep(schedule: Schedule): Promise<void> {
    const { ledger, store } = this.#parts;
    const spec = store.spec(schedule.job);
    const body = spec === null ? null : scheduledBody(spec, schedule.name);
    const digests = body === null ? null : await digestsOf(body);
    const repeated = store.job(schedule.job);
    const moment = ledger.moment(repeated?.actor ?? BROKER);
    const submission: Submission | null =
      repeated === null || body === null || digests === null
        ? null
        : {
            receivedAt: moment.now,
            random: crypto.getRandomValues(new Uint8Array(8)),
            brief: briefOf(body),
            ...digests,
            rerunOf: null,
            scheduledBy: repeated.id,
            teardown: false,
            ifMatch: null,
            lease: null,
          };
    const decided = fireSchedule(ledger.state(), schedule, submission, moment);
    const made = decided.answer;
    ledger.commit(decided, moment, made === null || body === null ? {} : { bodies: [{ job: made.job, spec: body }] });
  }

  /**
   * Takes a job in. When it could start at once, its pool is asked for a parked runner first, so that the job is born assigned in one
   * commit; others may be served meanwhile, so the decision is taken again after it.
   */
  async #enqueue(
    asked: Asked,
    spec: SubmitBody,
    { stranger, ...origin }: Origin,
    dryRun: boolean,
  ): Promise<SubmitAnswer | Refusal> {
    const { answers, ballots, dispatcher, ledger, pools, requests } = this.#parts;
    const fault = secretsFault(spec, stranger);
    if (fault !== null) return fault;
    const basis = spec.quorum === undefined ? null : await ballots.basis([]);
    if (isRefusal(basis)) return basis;
    const digests = await digestsOf(spec);
    const first = ledger.moment(asked.actor);
    const submission: Submission = {
      receivedAt: first.now,
      random: crypto.getRandomValues(new Uint8Array(8)),
      brief: briefOf(spec, stranger),
      ...digests,
      ...origin,
      ifMatch: asked.guard.ifMatch,
      lease: null,
      basis,
    };
    const known = dryRun ? null : requests.recall<SubmitAnswer>(asked, first.now);
    if (known !== null) return known;
    const planned = submit(ledger.state(), submission, first);
    if (isRefusal(planned)) return planned;
    const done =
      origin.rerunOf === null && !origin.teardown && stranger === null ? this.#doneAlready(spec, digests) : null;
    if (done !== null) return this.#joinDone(asked, done, first, dryRun);
    if (dryRun) return this.#submitAnswer(planned, first, true);
    const { offer } = planned.answer;
    if (offer === null) return this.#accept(asked, spec, planned, first);

    const reserved = await pools.reserve(offer.pool, offer.ticket);
    const moment = ledger.moment(asked.actor);
    const again = requests.recall<SubmitAnswer>(asked, moment.now);
    const lease = reserved === null ? null : { ...reserved.lease, job: planned.answer.job };
    const decided = again === null ? submit(ledger.state(), { ...submission, lease }, moment) : null;
    const taken = decided === null || isRefusal(decided) ? null : decided;
    if (reserved === null && taken !== null && taken.answer.offer !== null) dispatcher.nobodyParked(taken.answer.job);
    const answer = taken === null ? null : this.#accept(asked, spec, taken, moment);
    const granted = taken?.answer.granted ?? null;
    if (reserved !== null)
      this.#waitUntil(
        granted === null
          ? pools.release(reserved)
          : pools.deliver(reserved, answers.assignment(granted, spec, moment.now)),
      );
    return answer ?? again ?? (decided as Refusal);
  }

  /** The job of this very work that a runner has done without the broker, where nothing is asked for that it could not have had. */
  #doneAlready(spec: SubmitBody, digests: Awaited<ReturnType<typeof digestsOf>>): Job | null {
    const { source, quorum, env, secrets, task } = spec;
    if (source === undefined || task.kind === "effect") return null;
    if (quorum !== undefined || env !== undefined || secrets !== undefined) return null;
    return this.#standalone.doneBy({ repository: source.repository, commit: source.commit, ...digests });
  }

  /** Its result is the answer: the work is not done again. A rerun does it again. */
  #joinDone(asked: Asked, job: Job, moment: Moment, dryRun: boolean): SubmitAnswer {
    const { ledger, log, requests } = this.#parts;
    const state = ledger.state();
    const cursor = cursorAt(log, log.head());
    const answer = { job: jobView(state, job, moment.now), superseded: [], position: 0, cursor, joined: true, dryRun };
    const rows = (): void => requests.remember(asked, answer, moment.now);
    return dryRun ? answer : ledger.commit({ state, jobs: [], events: [], answer }, moment, { rows });
  }

  /** The answer is kept with the job, so that the same key gets it again; a job that was joined is not stored again. */
  #accept(asked: Asked, spec: SubmitBody, decided: Decided<Submitted>, moment: Moment): SubmitAnswer {
    const { ledger, requests } = this.#parts;
    const { job, joined, followers } = decided.answer;
    const answer = this.#submitAnswer(decided, moment, false);
    const rows = (): void => {
      requests.remember(asked, answer, moment.now);
      if (!joined) this.#replaceSteps(decided.jobs.filter(({ rerunOf }) => rerunOf !== null));
    };
    ledger.commit(decided, moment, joined ? { rows } : { rows, bodies: [{ job, spec }, ...followers] });
    return answer;
  }

  /** Steps that are done once more stand in the place of those before them. The job whose task file they are of has ended, and no event tells of it again. */
  #replaceSteps(again: readonly Job[]): void {
    const { answers, store } = this.#parts;
    const ids = new Map(again.map(({ id, step }) => [step?.name, id]));
    const of = again[0]?.step?.parent;
    const parent = of === undefined ? null : store.job(of);
    if (parent === null) return;
    store.putJob({ ...parent, steps: answers.stepsOf(parent).map(({ id, step }) => ids.get(step?.name) ?? id) });
  }

  /** The cursor is the place after this submit's own events: the job in the answer tells them already. */
  #submitAnswer({ state, jobs, events, answer }: Decided<Submitted>, { now }: Moment, dryRun: boolean): SubmitAnswer {
    const { log } = this.#parts;
    const job = jobs.find(({ id }) => id === answer.job) ?? state.jobs.find(({ id }) => id === answer.job);
    if (job === undefined) throw new Error(`job ${answer.job} is not part of its own submit`);
    const { joined, position, superseded, followers } = answer;
    const cursor = cursorAt(log, log.head() + (dryRun ? 0 : events.length));
    return {
      job: jobView(state, job, now),
      superseded,
      position,
      cursor,
      joined,
      dryRun,
      ...(followers.length === 0 ? {} : { followers: followers.map((one) => one.job) }),
    };
  }

  /** Commits a decision with the answer that its idempotency key gets from now on. */
  #answerOnce<Decision, Answer>(
    asked: Asked,
    moment: Moment,
    decided: Decided<Decision> | Refusal,
    answerOf: (decision: Decision, state: State) => Answer,
  ): Answer | Refusal {
    if (isRefusal(decided)) return decided;
    const answer = answerOf(decided.answer, decided.state);
    this.#parts.ledger.commit(decided, moment, {
      rows: () => this.#parts.requests.remember(asked, answer, moment.now),
    });
    return answer;
  }

  #commitJob(decided: Decided<Job> | Refusal, moment: Moment): JobView | Refusal {
    if (isRefusal(decided)) return decided;
    const job = this.#parts.ledger.commit(decided, moment);
    return jobView(decided.state, job, moment.now);
  }
}

function noSchedule({ deployment, schedules }: Lane, name: string): Refusal {
  const names = [...new Set(schedules.map((one) => one.name))].join(", ");
  return refuse("not-found", `Deployment ${deployment} has no schedule ${name}.`, {
    next: names === "" ? "A push sets the schedules of its task file when its run has succeeded." : `It has ${names}.`,
  });
}

/** The stranger whose job it was. What is made of their commit again is looked at again. */
function strangerIn({ brief: { stranger } }: Job): Stranger | null {
  return stranger === undefined ? null : { author: stranger.author, why: stranger.why, approvers: stranger.approvers };
}

function cancellation(
  { actor, guard }: Asked,
  job: JobId | null,
  { reason: why, force }: CancelBody,
): Parameters<typeof cancel>[1] {
  return {
    job,
    force: force ?? false,
    why: reason("cancelled", why ?? `Cancelled by ${actor}.`),
    ifMatch: guard.ifMatch,
  };
}
