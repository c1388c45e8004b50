import type { JobId, LockWait } from "@plumule/protocol";
import type { LockAnswer, LocksCall } from "../namespace/calls.ts";
import { within } from "../shared/within.ts";
import type { DeploymentCalls } from "./calls.ts";
import { noteLocks, noteSaid, noteSaying } from "./core/lock-news.ts";
import { isWanted, type LockWord, lockWord } from "./core/locks.ts";
import { BROKER, type Ledger } from "./ledger.ts";
import type { Store } from "./store.ts";

/** A namespace that does not answer within this is asked again later, ms. */
const CALL_MS = 5_000;

/** The locks of a deployment's jobs, which their namespace gives. Nothing is asked for a job that names none. */
export type Locks = {
  /** Says what is new or due: what is given back, and what is wanted. */
  send(): void;
  /** The lock that the job waits for, with who is in the way, as the namespace sees it now; null when it waits for none. */
  ask(job: JobId): Promise<LockWait | null>;
  /** From the namespace: how a request stands. False when it is not wanted any more. */
  told(call: Parameters<DeploymentCalls["locks"]>[0]): boolean;
};

/** What locks need of the object. */
export type LocksDeps = {
  ledger: Ledger;
  store: Store;
  settle: (call: LocksCall) => Promise<LockAnswer | null>;
  waitUntil: (work: Promise<unknown>) => void;
};

/** Makes the locks of an object. One word at a time is under way; after an eviction it is said again, which the namespace allows. */
export function createLocks({ ledger, store, settle, waitUntil }: LocksDeps): Locks {
  let isUnderWay = false;

  const say = async (word: LockWord): Promise<LockWait | null> => {
    const { released, wanted } = word;
    const { deployment } = ledger.state().lane;
    let answer: LockAnswer | null = null;
    let taken = false;
    try {
      const call = { deployment, released: released.map(({ job, number }) => ({ job, number })), wanted };
      answer = await within(CALL_MS, settle(call));
      taken = true;
    } catch {
      // Said again later: what is owed keeps when.
    }
    isUnderWay = false;
    const news = answer === null || wanted === null ? null : { job: wanted.job, ...answer };
    const moment = ledger.moment(BROKER);
    ledger.commit(noteSaid(ledger.state(), word, { taken, news }, moment), moment);
    // What came meanwhile.
    send();
    return answer?.wait ?? null;
  };

  const send = (): void => {
    const word = isUnderWay ? null : lockWord(ledger.state());
    if (word === null) return;
    const moment = ledger.moment(BROKER);
    if (!word.fresh && word.dueAt > moment.now) return;
    isUnderWay = true;
    // Else an alarm would come for it again and again until it is answered. A fresh word is not due yet.
    if (!word.fresh) ledger.commit(noteSaying(ledger.state(), word, 2 * CALL_MS, moment), moment);
    waitUntil(say(word));
  };

  return {
    send,
    async ask(job) {
      const word = isUnderWay ? null : lockWord(ledger.state());
      if (word?.wanted?.job !== job) return null;
      isUnderWay = true;
      return say(word);
    },
    told({ job, number, held }) {
      const state = ledger.state();
      if (!isWanted(state.jobs.find(({ id }) => id === job) ?? store.job(job), number)) return false;
      const moment = ledger.moment(BROKER);
      if (held) ledger.commit(noteLocks(state, { job, number, wait: null }, moment), moment);
      return true;
    },
  };
}
