import type { JobId } from "@plumule/protocol";
import type { Answers } from "./answers.ts";
import { grantReserved } from "./core/lease.ts";
import { noteSent } from "./core/pool-news.ts";
import { type Dispatch, dispatches } from "./core/tickets.ts";
import { BROKER, type Ledger } from "./ledger.ts";
import type { Pools } from "./pools.ts";
import type { Store } from "./store.ts";

/** Sends what pools have to be told. Each message is sent by one call at a time; what fails is due again later. */
export type Dispatcher = {
  /** Sends everything that is new or due. */
  send(): void;
  /** No runner was parked for this job just now: its ticket is put without asking again. */
  nobodyParked(job: JobId): void;
};

/** What sending needs of the object. */
export type DispatcherDeps = {
  ledger: () => Ledger;
  pools: Pools;
  store: Pick<Store, "spec">;
  answers: Pick<Answers, "assignment">;
  waitUntil: (work: Promise<unknown>) => void;
};

/** Makes the dispatcher of an object. What is on its way is in memory only: after an eviction it is sent again, which pools allow. */
export function createDispatcher({ ledger, pools, store, answers, waitUntil }: DispatcherDeps): Dispatcher {
  const underWay = new Set<string>();
  const unparked = new Set<JobId>();

  /** The fast path for a job that waits: a parked runner gets it in one commit, without a ticket. */
  const giveToParked = async (dispatch: Dispatch & { kind: "put" }): Promise<boolean> => {
    const reserved = await pools.reserve(dispatch.pool, dispatch.ticket);
    if (reserved === null) return false;
    const { job } = dispatch.ticket;
    const moment = ledger().moment(BROKER);
    const leased = ledger().commit(grantReserved(ledger().state(), { job, lease: reserved.lease }, moment), moment);
    const body = leased === null ? null : store.spec(job);
    if (leased === null || body === null) await pools.release(reserved);
    else await pools.deliver(reserved, answers.assignment(leased, body, moment.now));
    return true;
  };

  const sendOne = async (key: string, dispatch: Dispatch): Promise<void> => {
    try {
      if (
        dispatch.kind === "put" &&
        dispatch.fresh &&
        !unparked.delete(dispatch.ticket.job) &&
        (await giveToParked(dispatch))
      )
        return;
      const sent = await pools.send(dispatch, ledger().state().lane.deployment);
      const moment = ledger().moment(BROKER);
      underWay.delete(key);
      ledger().commit(noteSent(ledger().state(), { dispatch, ...sent }, moment), moment);
    } finally {
      underWay.delete(key);
    }
  };

  return {
    send() {
      const { now } = ledger().moment(BROKER);
      for (const dispatch of dispatches(ledger().state())) {
        const key =
          dispatch.kind === "put"
            ? `put ${dispatch.ticket.job} ${dispatch.ticket.number}`
            : `drop ${dispatch.job} ${dispatch.number}`;
        if ((!dispatch.fresh && dispatch.dueAt > now) || underWay.has(key)) continue;
        underWay.add(key);
        waitUntil(sendOne(key, dispatch));
      }
    },
    nobodyParked: (job) => void unparked.add(job),
  };
}
