import { approve, cancel } from "#durable-objects/deployment/core/cancel.ts";
import { claim, grantReserved, heartbeat } from "#durable-objects/deployment/core/lease.ts";
import type { State } from "#durable-objects/deployment/core/model.ts";
import { noteSent } from "#durable-objects/deployment/core/pool-news.ts";
import { report } from "#durable-objects/deployment/core/report.ts";
import { finish } from "#durable-objects/deployment/core/result.ts";
import { remove, submit } from "#durable-objects/deployment/core/submit.ts";
import { dispatches } from "#durable-objects/deployment/core/tickets.ts";
import { fire, timers } from "#durable-objects/deployment/core/timers.ts";
import type { Ticket } from "#durable-objects/pool/calls.ts";

/**
 * Every decision that the model takes. `REAL` is the broker's own code; a seeded bug replaces one or two of its members. `storage` and
 * `runner` are the only parts that the broker's code cannot give: what an object does around its core, and what a runner promises.
 */
export type Core = {
  submit: typeof submit;
  claim: typeof claim;
  grantReserved: typeof grantReserved;
  heartbeat: typeof heartbeat;
  report: typeof report;
  finish: typeof finish;
  cancel: typeof cancel;
  approve: typeof approve;
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
  };
  runner: {
    /** Work begins only after the first heartbeat was accepted. */
    waitsForLease: boolean;
    /** Work ends with the lease, by the runner's own clock. */
    fencesItself: boolean;
  };
};

/** The real broker, and a runner that keeps its promises. */
export const REAL: Core = {
  submit,
  claim,
  grantReserved,
  heartbeat,
  report,
  finish,
  cancel,
  approve,
  remove,
  fire,
  timers,
  dispatches,
  noteSent,
  storage: {
    survives: (newest) => newest,
    tickets: (stored) => stored,
    drops: (stored, number) => stored.number <= number,
  },
  runner: { waitsForLease: true, fencesItself: true },
};
