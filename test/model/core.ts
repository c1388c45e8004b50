import { approve, cancel, resolve } from "#durable-objects/deployment/core/cancel.ts";
import { claim, grantReserved, heartbeat } from "#durable-objects/deployment/core/lease.ts";
import type { State } from "#durable-objects/deployment/core/model.ts";
import { noteSent } from "#durable-objects/deployment/core/pool-news.ts";
import { flushProgress, report } from "#durable-objects/deployment/core/report.ts";
import { finish } from "#durable-objects/deployment/core/result.ts";
import { remove, submit } from "#durable-objects/deployment/core/submit.ts";
import { dispatches } from "#durable-objects/deployment/core/tickets.ts";
import { fire, timers } from "#durable-objects/deployment/core/timers.ts";
import type { Ticket } from "#durable-objects/pool/calls.ts";
import { recover } from "../../runner/src/core/recover.ts";
import { step } from "../../runner/src/core/step.ts";

/**
 * Every decision that the model takes. `REAL` is the broker's and the runner's own code; a seeded bug replaces one or two of its members. `storage`
 * and `machine` are the only parts that no core can give: what an object does around its core, and what a supervisor promises.
 */
export type Core = {
  submit: typeof submit;
  claim: typeof claim;
  grantReserved: typeof grantReserved;
  heartbeat: typeof heartbeat;
  report: typeof report;
  flushProgress: typeof flushProgress;
  finish: typeof finish;
  cancel: typeof cancel;
  approve: typeof approve;
  resolve: typeof resolve;
  remove: typeof remove;
  fire: typeof fire;
  timers: typeof timers;
  dispatches: typeof dispatches;
  noteSent: typeof noteSent;
  storage: {
    /** The state that an evicted deployment finds again, given the newest and the one before it. */
    survives: (newest: State, before: State) => State;
    /** The tickets that an evicted pool finds again. */
    tickets: (stored: readonly Ticket[]) => readonly Ticket[];
    /** Whether a drop takes out a ticket. */
    drops: (stored: Ticket, number: number) => boolean;
    /** The head after which new events are numbered, given the stored one and the one when the call began. */
    head: (stored: number, remembered: number) => number;
  };
  runner: { step: typeof step; recover: typeof recover };
  machine: {
    /** Work ends with the lease, by the supervisor's own clock. */
    fences: boolean;
    /** A supervisor that was not told to begin ends with its runner. */
    sweeps: boolean;
  };
};

/** The real broker and the real runner. */
export const REAL: Core = {
  submit,
  claim,
  grantReserved,
  heartbeat,
  report,
  flushProgress,
  finish,
  cancel,
  approve,
  resolve,
  remove,
  fire,
  timers,
  dispatches,
  noteSent,
  storage: {
    survives: (newest) => newest,
    tickets: (stored) => stored,
    drops: (stored, number) => stored.number <= number,
    head: (stored) => stored,
  },
  runner: { step, recover },
  machine: { fences: true, sweeps: true },
};
