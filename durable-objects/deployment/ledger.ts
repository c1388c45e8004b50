import type { Event, JobId, Millis, SubmitBody } from "@plumule/protocol";
import type { EventLog } from "../shared/event-log.ts";
import { transact } from "../shared/transact.ts";
import type { Actor } from "./calls.ts";
import { brokenRule } from "./core/invariants.ts";
import { liveRuns, type Moment, occupant, type Output, type Outputs, type State } from "./core/model.ts";
import { nextWake } from "./core/timers.ts";
import type { Decided } from "./core/work.ts";
import type { RunBytes } from "./run-bytes.ts";
import type { Store } from "./store.ts";

/** An alarm that should have come this long ago does not come any more, ms: the platform gives up after some failures. */
const OVERDUE_MS = 5_000;

/** Who decides in the broker's own name. */
export const BROKER = "broker";

/** True for what a namespace is told. Progress and derivations are for those who watch the deployment itself. */
export function isPublished(type: string): boolean {
  return type !== "job.progress" && type !== "derivation.changed";
}

/** What is stored together with a decision: the bodies of the jobs that it makes, and further rows. */
export type Alongside = { bodies?: readonly { job: JobId; spec: SubmitBody }[]; rows?: () => void };

/**
 * The state in memory, and the only way to change it: a decision, its events, its rows and the alarm are one transaction, after which the
 * decision's state is the state. The rows are the truth; what is in memory is a copy that only this object writes.
 */
export type Ledger = {
  state(): State;
  /** When a decision is taken, and by whom. Sees to it that an alarm is set when one is needed. */
  moment(actor: Actor): Moment;
  /** Throws, and keeps nothing, when the decision breaks a rule: that is a fault of this code. */
  commit<Answer>(decided: Decided<Answer>, moment: Moment, alongside?: Alongside): Answer;
  /** Call it once, before anything else, with the alarm that storage has. */
  wokenWith(alarmAt: Millis | null): void;
  /** Call it first in `alarm()`: until `arm`, no commit sets another one, because the handler is not done. */
  alarmFired(): void;
  /** Call it last in `alarm()`: sets the alarm for what is due next, but not before `notBefore`. */
  arm(notBefore?: Millis): void;
};

/** What the ledger needs of its object. `publishAt`: when events have to be told, `more` if some are being committed. */
export type LedgerDeps = {
  /** As it was loaded. */
  state: State;
  storage: DurableObjectStorage;
  store: Store;
  bytes: RunBytes;
  log: EventLog;
  now: () => Millis;
  publishAt: (more: boolean) => Millis | null;
  /** After every commit, with its events. */
  committed: (events: readonly Event[]) => void;
};

/** Opens the ledger of a deployment. */
export function createLedger({
  state: loaded,
  storage,
  store,
  bytes,
  log,
  now,
  publishAt,
  committed,
}: LedgerDeps): Ledger {
  let state = loaded;
  let alarmAt: Millis | null = null;

  /** Alarms are late on purpose: one that is set earlier than needed stays, because setting it costs a row, and it sets the right one when it fires. */
  const armed = (next: State, more: boolean, notBefore: Millis): Millis | null => {
    const wake = nextWake(next, outputsOf(next, bytes), publishAt(more));
    const at = now();
    if (wake === null || (alarmAt !== null && alarmAt <= Math.max(wake, at) && alarmAt > at - OVERDUE_MS))
      return alarmAt;
    const due = Math.max(wake, at, notBefore);
    void storage.setAlarm(due);
    return due;
  };

  return {
    state: () => state,
    moment(actor) {
      if (alarmAt === null || alarmAt <= now() - OVERDUE_MS) alarmAt = armed(state, false, 0);
      return { now: now(), actor, outputs: outputsOf(state, bytes) };
    },
    commit(decided, moment, { bodies = [], rows } = {}) {
      const { events: drafts } = decided;
      if (decided.state.lane === state.lane && decided.jobs.length === 0 && drafts.length === 0 && rows === undefined)
        return decided.answer;
      const before = state;
      let due = alarmAt;
      const events = transact(storage, () => {
        const broken = brokenRule(before, decided, moment.now);
        if (broken !== null) throw new Error(`A decision that breaks a promise is not kept. ${broken}`);
        store.save(before, decided, bodies);
        rows?.();
        due = armed(
          decided.state,
          drafts.some(({ type }) => isPublished(type)),
          0,
        );
        return drafts.length === 0 ? [] : log.append(drafts, moment.actor, moment.now, () => crypto.randomUUID());
      });
      state = decided.state;
      alarmAt = due;
      committed(events);
      return decided.answer;
    },
    wokenWith(at) {
      alarmAt = at;
    },
    alarmFired() {
      alarmAt = now();
    },
    arm(notBefore = 0) {
      alarmAt = null;
      alarmAt = armed(state, false, notBefore);
    },
  };
}

/** What the live runs have logged: one look per run, and none while nothing runs. */
function outputsOf({ jobs }: State, bytes: RunBytes): Outputs | null {
  const job = occupant(jobs);
  if (job === null) return null;
  const outputs = liveRuns(job).flatMap(({ epoch }): [number, Output][] => {
    const output = bytes.output(epoch);
    return output === null ? [] : [[epoch, output]];
  });
  return new Map(outputs);
}
