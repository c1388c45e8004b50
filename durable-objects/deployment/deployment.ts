import { DurableObject } from "cloudflare:workers";
import {
  CLOSE_CODES,
  refuse,
  type Assignment,
  type CancelAnswer,
  type DeploymentSnapshot,
  type DeploymentView,
  type Derivation,
  type EventsPage,
  type HeartbeatAnswer,
  type JobDetail,
  type JobId,
  type JobView,
  type Refusal,
  type ResultAnswer,
  type RunId,
  type RunView,
  type SubmitAnswer,
  type WireEnvelope,
} from "@plumule/protocol";
import type { Env } from "../env.ts";
import { refuseHandshake, turnAway } from "../shared/handshake.ts";
import { hasTables } from "../shared/migrate.ts";
import type { DeploymentCalls, LogSlice } from "./calls.ts";
import { poolOf } from "./core/model.ts";
import { noteWaiting } from "./core/pool-news.ts";
import { offerable } from "./core/tickets.ts";
import { fire, type Timer, timers } from "./core/timers.ts";
import { Decisions } from "./decisions.ts";
import { BROKER } from "./ledger.ts";
import { type Identity, identityOf, openParts, type Parts } from "./parts.ts";
import { Runs } from "./runs.ts";
import { sweep } from "./sweeper.ts";

/** An alarm that met a fault tries again after this, ms: sooner would spin. */
const FAULT_REST_MS = 60_000;

type CallOf<Name extends keyof DeploymentCalls> = Parameters<DeploymentCalls[Name]>[0];

/**
 * A deployment: the only owner of the truth about its jobs. It grants leases, moves states, numbers events and seals logs. Every
 * handler reads the state, has the core decide, and commits the decision with its events and the alarm; the rules are in `core/`.
 */
export class Deployment extends DurableObject<Env> implements DeploymentCalls {
  readonly #identity: Identity;
  #opened: { parts: Parts; decisions: Decisions; runs: Runs } | null = null;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#identity = identityOf(ctx.id);
    if (hasTables(ctx.storage.sql)) this.#open();
  }

  /** Makes the tables of a new deployment. A runner's write never does: its sender is not known yet, and may have made up the name (P12). */
  #open(): { parts: Parts; decisions: Decisions; runs: Runs } {
    const waitUntil = (work: Promise<unknown>): void => this.ctx.waitUntil(work);
    const parts = openParts(this.ctx, this.env, this.#identity);
    return (this.#opened = { parts, decisions: new Decisions(parts, waitUntil), runs: new Runs(parts, waitUntil) });
  }

  get #parts(): Parts {
    return (this.#opened ?? this.#open()).parts;
  }

  get #decisions(): Decisions {
    return (this.#opened ?? this.#open()).decisions;
  }

  async submit(call: CallOf<"submit">): Promise<SubmitAnswer | Refusal> {
    return this.#decisions.submit(call);
  }

  async rerun(call: CallOf<"rerun">): Promise<SubmitAnswer | Refusal> {
    return this.#decisions.rerun(call);
  }

  async remove(call: CallOf<"remove">): Promise<SubmitAnswer | DeploymentView | Refusal> {
    return this.#decisions.remove(call);
  }

  async cancelAll(call: CallOf<"cancelAll">): Promise<CancelAnswer | Refusal> {
    return this.#decisions.cancel(call, null);
  }

  async cancelJob(call: CallOf<"cancelJob">): Promise<CancelAnswer | Refusal> {
    return this.#decisions.cancel(call, call.job);
  }

  async approve(call: CallOf<"approve">): Promise<JobView | Refusal> {
    return this.#decisions.approve(call);
  }

  async resolve(call: CallOf<"resolve">): Promise<JobView | Refusal> {
    return this.#decisions.resolve(call);
  }

  async read(): Promise<DeploymentSnapshot | Refusal> {
    const { answers, ledger } = this.#parts;
    return answers.refusal() ?? answers.snapshot(ledger.moment(BROKER).now);
  }

  /** A job that is offered to runners is explained as its pool sees it now. */
  async job(id: JobId): Promise<JobDetail | Refusal> {
    const { answers, ledger, pools } = this.#parts;
    const head = offerable(ledger.state().jobs, Date.now());
    const waiting =
      head?.id === id && head.ticket?.placed === true ? await pools.explain(poolOf(head.brief), id) : null;
    if (waiting !== null) await this.waiting({ changes: [{ job: id, waiting }] });
    return answers.job(id, ledger.moment(BROKER).now);
  }

  async run(id: RunId): Promise<RunView | Refusal> {
    return this.#parts.answers.run(id);
  }

  async derivations(job: JobId): Promise<{ nodes: Derivation[]; edges: [string, string][] } | Refusal> {
    return this.#parts.answers.derivations(job);
  }

  async statements(job: JobId): Promise<WireEnvelope[] | Refusal> {
    return this.#parts.answers.statements(job);
  }

  async readLog({ run, offset, limit }: CallOf<"readLog">): Promise<LogSlice | Refusal> {
    return this.#parts.answers.readLog(run, offset, limit);
  }

  async history(call: CallOf<"history">): Promise<EventsPage | Refusal> {
    return this.#parts.answers.refusal() ?? this.#parts.history.read(call);
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

  override async fetch(request: Request): Promise<Response> {
    const refusal = this.#parts.answers.refusal();
    if (refusal === null) return this.#parts.watchers.accept(request);
    return refuseHandshake(request) ?? turnAway(CLOSE_CODES.notFound, refusal.detail);
  }

  override async webSocketMessage(ws: WebSocket, message: string | ArrayBuffer): Promise<void> {
    this.#parts.watchers.message(ws, message);
  }

  override async webSocketClose(ws: WebSocket): Promise<void> {
    this.#parts.watchers.closed(ws);
  }

  override async webSocketError(ws: WebSocket): Promise<void> {
    this.#parts.watchers.closed(ws);
  }

  /** Handles what is due, one by one. Never throws: a fault shows in the trace and rests for a minute, and everything else is served. */
  override async alarm(): Promise<void> {
    const { dispatcher, ledger, publisher } = this.#parts;
    ledger.alarmFired();
    const { now, output } = ledger.moment(BROKER);
    const due = timers(ledger.state(), output).filter(({ at }) => at <= now);
    const steps = [
      ...due.map((timer) => () => this.#fire(timer)),
      () => this.#sweep(),
      () => dispatcher.send(),
      () => publisher.heal(),
    ];
    let faulty = false;
    for (const step of steps) {
      try {
        step();
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

function noRun(): Refusal {
  return refuse("stale-lease", "This deployment has no runs.");
}
