import {
  isRefusal,
  jobOfRun,
  LIMITS,
  planTextOf,
  refuse,
  type Assignment,
  type DeploymentSnapshot,
  type Derivation,
  type JobDetail,
  type JobId,
  type Millis,
  type Refusal,
  type RunId,
  type RunView,
  type SubmitBody,
  type WireEnvelope,
} from "@plumule/protocol";
import { cursorAt } from "../shared/cursor.ts";
import type { EventLog } from "../shared/event-log.ts";
import { assignmentOf } from "./bodies.ts";
import type { LogSlice } from "./calls.ts";
import type { Leased } from "./core/lease.ts";
import type { Job, Lane, Run, State } from "./core/model.ts";
import { comparedWith } from "./core/unchanged.ts";
import { foldDerivations } from "./core/report.ts";
import { deploymentView, isFinal, jobView, runView } from "./core/views.ts";
import type { RunBytes } from "./run-bytes.ts";
import type { Store } from "./store.ts";

/** Ended jobs that a snapshot carries. */
const SNAPSHOT_FINAL_JOBS = 50;

/** A slice of a log with the state that the end of a watched log shows. */
export type WatchedSlice = LogSlice & { state: RunView["log"]["state"] };

/** A run with its job. */
export type Found = { job: Job; run: Run };

/** What may be asked of a deployment without changing it: answered from rows and from the state in memory. */
export class Answers {
  readonly #store: Store;
  readonly #bytes: RunBytes;
  readonly #log: EventLog;
  readonly #state: () => State;

  constructor(deps: { store: Store; bytes: RunBytes; log: EventLog; state: () => State }) {
    this.#store = deps.store;
    this.#bytes = deps.bytes;
    this.#log = deps.log;
    this.#state = deps.state;
  }

  /** Null when the deployment may be asked; `not-found` before its first job, `gone` after its removal. */
  refusal(): Refusal | null {
    const { createdAt, deployment, removedAt } = this.#state().lane;
    if (removedAt !== null) return refuse("gone", `Deployment ${deployment} was removed.`);
    return createdAt === null ? refuse("not-found", `There is no deployment ${deployment}.`) : null;
  }

  /** The deployment, its jobs that are not final and its newest final ones, oldest first. */
  snapshot(now: Millis): DeploymentSnapshot {
    const state = this.#state();
    const jobs = [...this.#store.finalJobs(SNAPSHOT_FINAL_JOBS).toReversed(), ...state.jobs];
    const cursor = cursorAt(this.#log, this.#log.head());
    return { deployment: deploymentView(state), jobs: jobs.map((job) => jobView(state, job, now)), cursor };
  }

  /** What is known of the deployment besides its jobs. */
  lane(): Lane {
    return this.#state().lane;
  }

  /** A job, final or not. */
  find(id: JobId): Job | Refusal {
    const job = this.#state().jobs.find((one) => one.id === id) ?? this.#store.job(id);
    return this.refusal() ?? job ?? refuse("not-found", `There is no job ${id} in this deployment.`);
  }

  /** A run, live or not. */
  findRun(id: RunId): Found | Refusal {
    const job = this.find(jobOfRun(id));
    if (isRefusal(job)) return job;
    const run = job.runs.find((one) => one.id === id);
    return run === undefined ? refuse("not-found", `Job ${job.id} has no run ${id}.`) : { job, run };
  }

  /** The assignment of a lease that was just given. */
  assignment(leased: Leased, spec: SubmitBody, now: Millis): Assignment {
    const lastSuccess = spec.skipUnchanged === true ? this.#lastSuccess(leased.job) : undefined;
    return assignmentOf(this.#state().lane, leased, spec, { now, lastSuccess });
  }

  /**
   * What is live in the deployment, or was built by the same step, when equal work made it. A stranger's success says nothing about a job of others, and that of a quorum has
   * outputs of several runners.
   */
  #lastSuccess(job: Job): Assignment["lastSuccess"] {
    const known = comparedWith(this.#state().lane, job);
    const live = known === null ? null : this.#store.job(known);
    const run = live?.runs.find(({ state }) => state === "succeeded");
    if (live === null || run === undefined || live.brief.stranger !== undefined || live.quorum !== undefined)
      return undefined;
    const isEqual = live.taskSha256 === job.taskSha256 && live.configurationSha256 === job.configurationSha256;
    const outputs = isEqual ? (this.#store.result(run.epoch)?.outputs ?? []) : [];
    const drvs = [...new Set(outputs.map(({ drvPath }) => drvPath))].toSorted();
    return drvs.length === 0 ? undefined : { job: live.id, drvs };
  }

  job(id: JobId, now: Millis): JobDetail | Refusal {
    const job = this.find(id);
    if (isRefusal(job)) return job;
    const spec = this.#store.spec(id);
    if (spec === null) return refuse("gone", `Job ${id} was removed by retention.`);
    // That of a step was signed for the job that read the task file.
    const approval = job.step === undefined ? job.brief.stranger?.approved?.envelope : undefined;
    return {
      job: jobView(this.#state(), job, now),
      spec,
      runs: job.runs.map((run) => this.#viewRun({ job, run })),
      ...this.#stepsOf(job),
      ...(approval === undefined ? {} : { approval }),
      ...this.#planOf(job),
      ...this.#judgement(job),
    };
  }

  run(id: RunId): RunView | Refusal {
    const found = this.findRun(id);
    return isRefusal(found) ? found : this.#viewRun(found);
  }

  /** The graph of the job's newest run that has one; of several replicas, the one that is shown. */
  derivations(id: JobId): { nodes: Derivation[]; edges: [string, string][] } | Refusal {
    const job = this.find(id);
    if (isRefusal(job)) return job;
    const shown = job.quorum === undefined ? job.runs.toReversed() : job.runs;
    const run = shown.find(({ derivationCharacters }) => derivationCharacters > 0);
    return foldDerivations(run === undefined ? [] : this.#bytes.batches(run.epoch));
  }

  /** What runners signed about the job, in results that counted, and behind it what the broker signed about its verdict. */
  statements(id: JobId): WireEnvelope[] | Refusal {
    const job = this.find(id);
    if (isRefusal(job)) return job;
    const counted = job.runs.filter(({ statementCount }) => statementCount > 0);
    const said = counted.flatMap(({ epoch }) => this.#store.result(epoch)?.statements ?? []);
    const summary = isFinal(job) ? this.#store.verdict(job)?.summary : undefined;
    return summary === undefined ? said : [...said, summary];
  }

  readLog(id: RunId, offset: number, limit: number): WatchedSlice | Refusal {
    const found = this.findRun(id);
    if (isRefusal(found)) return found;
    const { log } = found.run;
    if (log.state === "expired") return refuse("log-expired", `The log of run ${id} is no longer kept.`);
    const size = log.state === "open" ? (this.#bytes.output(found.run.epoch)?.bytes ?? 0) : log.bytes;
    if (offset > size)
      return refuse("log-gap", `The log has ${size} bytes, ${offset} is beyond its end.`, {
        headers: { "Plumule-Log-Size": String(size) },
      });
    const bytes = this.#bytes.read(found.run.epoch, offset, Math.min(limit, LIMITS.logReadBytes));
    return { bytes, offset, size, complete: log.state !== "open", sha256: log.sha256, state: log.state };
  }

  /** The jobs that a job's task file became, in their order: of each step the newest, as far as they are kept. */
  stepsOf({ steps = [] }: Pick<Job, "steps">): Job[] {
    return steps.flatMap((id) => this.#state().jobs.find((one) => one.id === id) ?? this.#store.job(id) ?? []);
  }

  #stepsOf(job: Job): Pick<JobDetail, "steps"> {
    if (job.steps === undefined) return {};
    return {
      steps: this.stepsOf(job).map(({ id, state, brief: { kind }, reason, step }) => ({
        id,
        state,
        kind,
        reason,
        name: step?.name ?? "",
      })),
    };
  }

  /** The text of the job's plan, from the statement of the run that made it. */
  #planOf({ plan, runs }: Job): Pick<JobDetail, "planText"> {
    const run = plan === undefined ? undefined : runs.find(({ id }) => id === plan.run);
    const statement = run === undefined ? undefined : this.#store.result(run.epoch)?.statements[0];
    const text = statement === undefined ? null : planTextOf(statement);
    return text === null ? {} : { planText: text };
  }

  /** What votes came to: of a quorum while it goes on, and what the broker signed about a job that has ended. */
  #judgement(job: Job): Pick<JobDetail, "verdict" | "summary" | "equivocations"> {
    const stored = isFinal(job) ? this.#store.verdict(job) : null;
    if (stored !== null)
      return { verdict: stored.verdict, summary: stored.summary, equivocations: [...stored.equivocations] };
    return job.quorum === undefined ? {} : { verdict: job.quorum.verdict };
  }

  #viewRun({ job, run }: Found): RunView {
    const output = run.log.state === "open" ? this.#bytes.output(run.epoch) : null;
    const result = run.statementCount === 0 ? null : this.#store.result(run.epoch);
    return runView(this.#state().lane, job, run, output, result?.outputs ?? []);
  }
}
