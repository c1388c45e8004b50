import { DurableObject } from "cloudflare:workers";
import {
  CLOSE_CODES,
  describeLockWait,
  isRefusal,
  refuse,
  type Assignment,
  type CancelAnswer,
  type DeploymentSnapshot,
  type DeploymentView,
  type Derivation,
  type EventsPage,
  type ExecSession,
  type HeartbeatAnswer,
  type JobDetail,
  type JobId,
  type JobMatch,
  type JobView,
  type LockWait,
  type Refusal,
  type ResultAnswer,
  type RunId,
  type RunView,
  type StandaloneAnswer,
  type SubmitAnswer,
  type TrustBasis,
  type WireEnvelope,
  type WorkAnswer,
} from "@plumule/protocol";
import type { Env } from "../env.ts";
import { isStorageAhead } from "../shared/ahead.ts";
import { refuseHandshake, turnAway } from "../shared/handshake.ts";
import { hasTables } from "../shared/migrate.ts";
import type { DeploymentCalls, LogSlice } from "./calls.ts";
import { dismiss } from "./core/lease.ts";
import { poolOf } from "./core/model.ts";
import { noteWaiting } from "./core/pool-news.ts";
import { offerable } from "./core/tickets.ts";
import { dueSchedules } from "./core/schedules.ts";
import { fire, type Timer, timers } from "./core/timers.ts";
import { type ListRunners, matchJob } from "./matches.ts";
import { namespaceObject } from "../shared/names.ts";
import { Decisions } from "./decisions.ts";
import { BROKER } from "./ledger.ts";
import { MIGRATIONS } from "./migrations.ts";
import { type Identity, identityOf, openParts, type Parts } from "./parts.ts";
import { Runs } from "./runs.ts";
import { admitStandalone, StandaloneRuns } from "./standalone.ts";
import { sweep } from "./sweeper.ts";

/** An alarm that met a fault tries again after this, ms: sooner would spin. */
const FAULT_REST_MS = 60_000;

/** The object once it has tables: its parts, what people decide, and what runners write. */
type Opened = { parts: Parts; decisions: Decisions; runs: Runs; standalone: StandaloneRuns };

type CallOf<Name extends keyof DeploymentCalls> = Parameters<DeploymentCalls[Name]>[0];

/**
 * A deployment: the only owner of the truth about its jobs. It grants leases, moves states, numbers events and seals logs. Every
 * handler reads the state, has the core decide, and commits the decision with its events and the alarm; the rules are in `core/`.
 */
export class Deployment extends DurableObject<Env> implements DeploymentCalls {
  readonly #identity: Identity;
  #opened: Opened | null = null;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#identity = identityOf(ctx.id);
    if (hasTables(ctx.storage.sql) && !isStorageAhead(ctx, MIGRATIONS)) this.#open();
  }

  /** Makes the tables of a new deployment. A runner's write never does: its sender is not known yet, and may have made up the name (P12). */
  #open(): Opened {
    const waitUntil = (work: Promise<unknown>): void => this.ctx.waitUntil(work);
    const parts = openParts(this.ctx, this.env, this.#identity);
    const standalone = new StandaloneRuns(parts);
    const decisions = new Decisions(parts, standalone, waitUntil);
    return (this.#opened = { parts, decisions, runs: new Runs(parts, waitUntil), standalone });
  }

  get #parts(): Parts {
    return (this.#opened ?? this.#open()).parts;
  }

  /** What only a deployment that exists can answer: a question about another one must not bring it into being. */
  #existing(): Opened | Refusal {
    const name = this.ctx.id.name ?? "";
    return this.#opened ?? refuse("not-found", `There is no deployment ${name.slice(name.indexOf("/") + 1)}.`);
  }

  #ask<Answer>(answer: (opened: Opened) => Answer): Answer | Refusal {
    const opened = this.#existing();
    return isRefusal(opened) ? opened : answer(opened);
  }

  async submit(call: CallOf<"submit">): Promise<SubmitAnswer | Refusal> {
    return (this.#opened ?? this.#open()).decisions.submit(call);
  }

  async rerun(call: CallOf<"rerun">): Promise<SubmitAnswer | Refusal> {
    return this.#ask(({ decisions }) => decisions.rerun(call));
  }

  async remove(call: CallOf<"remove">): Promise<SubmitAnswer | DeploymentView | Refusal> {
    return this.#ask(({ decisions }) => decisions.remove(call));
  }

  async cancelAll(call: CallOf<"cancelAll">): Promise<CancelAnswer | Refusal> {
    return this.#ask(({ decisions }) => decisions.cancel(call, null));
  }

  async cancelJob(call: CallOf<"cancelJob">): Promise<CancelAnswer | Refusal> {
    return this.#ask(({ decisions }) => decisions.cancel(call, call.job));
  }

  async approve(call: CallOf<"approve">): Promise<JobView | Refusal> {
    return this.#ask(({ decisions }) => decisions.approve(call));
  }

  async resolve(call: CallOf<"resolve">): Promise<JobView | Refusal> {
    return this.#ask(({ decisions }) => decisions.resolve(call));
  }

  async setSchedule(call: CallOf<"setSchedule">): Promise<DeploymentView | Refusal> {
    return this.#ask(({ decisions }) => decisions.setSchedule(call));
  }

  async read(): Promise<DeploymentSnapshot | Refusal> {
    return this.#ask(
      ({ parts: { answers, ledger } }) => answers.refusal() ?? answers.snapshot(ledger.moment(BROKER).now),
    );
  }

  /** A job that is offered to runners is explained as its pool sees it now, one that waits for a lock as its namespace does. */
  async job(id: JobId): Promise<JobDetail | Refusal> {
    const opened = this.#existing();
    if (isRefusal(opened)) return opened;
    const { answers, ledger, locks, pools } = opened.parts;
    const head = offerable(ledger.state().jobs, Date.now());
    const waiting =
      head?.id === id && head.ticket?.placed === true ? await pools.explain(poolOf(head.brief), id) : null;
    if (waiting !== null) await this.waiting({ changes: [{ job: id, waiting }] });
    const lock = await locks.ask(id);
    const detail = answers.job(id, ledger.moment(BROKER).now);
    return isRefusal(detail) || lock === null ? detail : withLock(detail, lock);
  }

  async match({ job: id, runner, limit }: CallOf<"match">): Promise<JobMatch | Refusal> {
    const opened = this.#existing();
    if (isRefusal(opened)) return opened;
    const detail = await this.job(id);
    if (isRefusal(detail)) return detail;
    const { namespace } = this.#identity;
    const listRunners: ListRunners = (call) => namespaceObject(this.env, namespace).listRunners(call);
    return matchJob({ view: detail.job, runner, limit }, opened.parts.answers, listRunners, Date.now());
  }

  async run(id: RunId): Promise<RunView | Refusal> {
    return this.#ask(({ parts }) => parts.answers.run(id));
  }

  async derivations(job: JobId): Promise<{ nodes: Derivation[]; edges: [string, string][] } | Refusal> {
    return this.#ask(({ parts }) => parts.answers.derivations(job));
  }

  async statements(job: JobId): Promise<WireEnvelope[] | Refusal> {
    return this.#ask(({ parts }) => parts.answers.statements(job));
  }

  async readLog({ run, offset, limit }: CallOf<"readLog">): Promise<LogSlice | Refusal> {
    return this.#ask(({ parts }) => parts.answers.readLog(run, offset, limit));
  }

  async history(call: CallOf<"history">): Promise<EventsPage | Refusal> {
    return this.#ask(({ parts }) => parts.answers.refusal() ?? parts.history.read(call));
  }

  async claim(call: CallOf<"claim">): Promise<Assignment | null> {
    return this.#opened?.runs.claim(call) ?? null;
  }

  async waiting({ changes }: CallOf<"waiting">): Promise<void> {
    const { ledger } = this.#parts;
    const moment = ledger.moment(BROKER);
    ledger.commit(noteWaiting(ledger.state(), changes, moment), moment);
  }

  async heartbeat(call: CallOf<"heartbeat">): Promise<HeartbeatAnswer | Refusal> {
    return this.#opened?.runs.heartbeat(call) ?? noRun();
  }

  async report(call: CallOf<"report">): Promise<{ number: number } | Refusal> {
    return this.#opened?.runs.report(call) ?? noRun();
  }

  async appendLog(call: CallOf<"appendLog">): Promise<{ bytes: number } | Refusal> {
    return this.#opened?.runs.appendLog(call) ?? noRun();
  }

  async result(call: CallOf<"result">): Promise<ResultAnswer | Refusal> {
    return this.#opened?.runs.result(call) ?? noRun();
  }

  async findWork(call: CallOf<"findWork">): Promise<WorkAnswer | Refusal> {
    return this.#opened?.standalone.find(call) ?? { job: null };
  }

  /** What is admitted brings a deployment into being, as a submit does. */
  async recordStandalone(call: CallOf<"recordStandalone">): Promise<StandaloneAnswer | Refusal> {
    const trustBasis = (): Promise<TrustBasis> =>
      namespaceObject(this.env, this.#identity.namespace).trustBasis({ runners: [call.runner] });
    const admitted = await admitStandalone(this.#identity, call, trustBasis);
    return isRefusal(admitted) ? admitted : (this.#opened ?? this.#open()).standalone.record(admitted);
  }

  async appendStandaloneLog(call: CallOf<"appendStandaloneLog">): Promise<{ bytes: number } | Refusal> {
    return this.#ask(({ standalone }) => standalone.appendLog(call));
  }

  async locks(call: CallOf<"locks">): Promise<boolean> {
    return this.#opened?.parts.locks.told(call) ?? false;
  }

  async dismiss({ actor, runner }: CallOf<"dismiss">): Promise<void> {
    if (this.#opened === null) return;
    const { ledger } = this.#opened.parts;
    const moment = ledger.moment(actor);
    ledger.commit(dismiss(ledger.state(), runner, moment), moment);
    this.#opened.parts.execs.end({ runner });
  }

  async openExec(call: CallOf<"openExec">): Promise<ExecSession | Refusal> {
    return this.#ask(({ parts }) => parts.execs.open(call));
  }

  async endWatchers({ actor }: CallOf<"endWatchers">): Promise<void> {
    this.#opened?.parts.watchers.end(actor);
    this.#opened?.parts.execs.end({ actor });
  }

  override async fetch(request: Request): Promise<Response> {
    const opened = this.#existing();
    if (new URL(request.url).pathname.endsWith("/exec"))
      return isRefusal(opened) ? turnAway(CLOSE_CODES.notFound, opened.detail) : opened.parts.execs.join(request);
    const refusal = isRefusal(opened) ? opened : opened.parts.answers.refusal();
    if (isRefusal(opened) || refusal !== null)
      return refuseHandshake(request) ?? turnAway(CLOSE_CODES.notFound, refusal?.detail ?? "");
    return opened.parts.watchers.accept(request);
  }

  override async webSocketMessage(ws: WebSocket, message: string | ArrayBuffer): Promise<void> {
    this.#parts.watchers.message(ws, message);
  }

  override async webSocketClose(ws: WebSocket, code: number): Promise<void> {
    this.#parts.watchers.closed(ws, code);
  }

  override async webSocketError(): Promise<void> {
    this.#parts.watchers.broken();
  }

  /** Handles what is due, one by one. Never throws: a fault shows in the trace and rests for a minute, and everything else is served. */
  override async alarm(): Promise<void> {
    const { parts, decisions } = this.#opened ?? this.#open();
    const { ballots, dispatcher, ledger, locks, publisher, summaries } = parts;
    ledger.alarmFired();
    const { now, outputs } = ledger.moment(BROKER);
    const due = timers(ledger.state(), outputs).filter(({ at }) => at <= now);
    const steps: (() => void | Promise<void>)[] = [
      ...due.map((timer) => () => this.#fire(timer)),
      ...dueSchedules(ledger.state().lane, now).map((schedule) => () => decisions.keep(schedule)),
      () => this.#sweep(),
      () => dispatcher.send(),
      () => locks.send(),
      () => summaries.send(),
      () => ballots.renew(),
      () => publisher.heal(),
    ];
    let faulty = false;
    for (const step of steps) {
      try {
        await step();
      } catch (fault) {
        faulty = true;
        this.ctx.waitUntil(Promise.reject(fault instanceof Error ? fault : new Error(String(fault))));
      }
    }
    ledger.arm(faulty ? now + FAULT_REST_MS : 0);
  }

  #fire(timer: Timer): void {
    const { ledger } = this.#parts;
    const moment = ledger.moment(BROKER);
    ledger.commit(fire(ledger.state(), timer, moment), moment);
  }

  #sweep(): void {
    const { ledger } = this.#parts;
    const moment = ledger.moment(BROKER);
    const { sweepAt } = ledger.state().lane;
    if (sweepAt === null || sweepAt > moment.now) return;
    const { decided, rows } = sweep(this.#parts, ledger.state(), moment.now);
    ledger.commit(decided, moment, { rows });
  }
}

/** A job that still waits for a lock, with who is in the way. */
function withLock(detail: JobDetail, lock: LockWait): JobDetail {
  const { job } = detail;
  if (job.waiting?.lock === undefined) return detail;
  return { ...detail, job: { ...job, waiting: { ...job.waiting, lock, detail: describeLockWait(lock) } } };
}

function noRun(): Refusal {
  return refuse("stale-lease", "This deployment has no runs.");
}
