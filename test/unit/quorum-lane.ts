import {
  isRefusal,
  type Outcome,
  type Quorum,
  type SubmitBody,
  type TrustBasis,
  type TrustPolicy,
} from "@plumule/protocol";
import { expect } from "vitest";
import { brokenRule } from "#durable-objects/deployment/core/invariants.ts";
import type { LeaseProof } from "#durable-objects/deployment/core/lease.ts";
import type { Job, State } from "#durable-objects/deployment/core/model.ts";
import { dispatches } from "#durable-objects/deployment/core/tickets.ts";
import { fire, timers } from "#durable-objects/deployment/core/timers.ts";
import type { Change } from "#durable-objects/deployment/core/work.ts";
import type { Ticket } from "#durable-objects/pool/calls.ts";
import {
  at,
  BY_DEFAULT,
  claim,
  EMPTY,
  finish,
  heartbeat,
  jobIn,
  lease,
  START,
  submitted,
  voteOf,
} from "./deployment-builders.ts";

/** A lane with one job of several replicas, driven by hand. Every decision is checked against the rules of the core. */
export class Lane {
  state: State;
  readonly job: string;
  now = START;
  events: Change["events"] = [];
  #last: Job;
  readonly proofs = new Map<string, LeaseProof>();

  constructor(
    quorum: Quorum,
    { body = {}, basis = BY_DEFAULT }: { body?: Partial<SubmitBody>; basis?: TrustBasis } = {},
  ) {
    const { state, job } = submitted(EMPTY, { ...body, quorum }, START, { basis });
    this.state = state;
    this.job = job;
    this.#last = jobIn(state, job);
  }

  /** The job, also after it has ended. */
  get record(): Job {
    return this.state.jobs.find(({ id }) => id === this.job) ?? this.#last;
  }

  take(change: Change | ReturnType<typeof finish>): void {
    if (isRefusal(change)) throw new Error(`${change.refused}: ${change.detail}`);
    expect(brokenRule(this.state, change, this.now)).toBeNull();
    this.state = change.state;
    this.events = change.events;
    this.#last = change.jobs.find(({ id }) => id === this.job) ?? this.#last;
  }

  /** The runner claims the ticket; false when it gets nothing. */
  claim(runner: string): boolean {
    const change = claim(
      this.state,
      { job: this.job, ticket: this.record.ticket?.number ?? -1, lease: lease(runner) },
      at(this.now),
    );
    this.take(change);
    const { answer } = change;
    if (answer === null) return false;
    const { run } = answer;
    this.proofs.set(runner, { run: run.id, leaseSha256: run.leaseSha256, epoch: run.epoch });
    return true;
  }

  proof(runner: string): LeaseProof {
    const proof = this.proofs.get(runner);
    if (proof === undefined) throw new Error("no lease");
    return proof;
  }

  begin(...runners: string[]): this {
    for (const runner of runners) {
      expect(this.claim(runner)).toBe(true);
      this.take(heartbeat(this.state, { ...this.proof(runner), isolation: null }, at(this.now)));
    }
    return this;
  }

  /** The runner reports; a succeeded replica built these bytes. */
  result(runner: string, nar: string, how: Parameters<typeof voteOf>[3] & { outcome?: Outcome } = {}): this {
    const reported = voteOf(
      this.state,
      this.proof(runner),
      how.outcome ?? "succeeded",
      { ...how, nar },
      {
        reason: (how.outcome ?? "succeeded") === "succeeded" ? null : { code: "exit-code", detail: "exit 1" },
      },
    );
    this.take(finish(this.state, reported, at(this.now)));
    return this;
  }

  /** Fires what is due until a moment. */
  wait(ms: number): this {
    this.now += ms;
    for (const timer of timers(this.state, null).filter((one) => one.at <= this.now))
      this.take(fire(this.state, timer, at(this.now)));
    return this;
  }

  get types(): string[] {
    return this.events.map(({ type }) => type);
  }
}

/** The tickets that pools have still to be told of. */
export function offers({ state }: Lane): Ticket[] {
  return dispatches(state).flatMap((one) => (one.kind === "put" ? [one.ticket] : []));
}

/** A policy that was put: these keys, of these operators. */
export const policyOf = (operators: Record<string, string>, more: Partial<TrustPolicy> = {}): TrustBasis => ({
  at: new Date(START).toISOString(),
  policy: {
    version: 2,
    expires: null,
    signers: Object.entries(operators).map(([key, operator]) => ({ key, operator })),
    rules: [],
    ...more,
  },
  isDefault: false,
  revoked: [],
});
