import { LIMITS, type DeploymentId, type JobId, type LockName, type LockWait, type Millis } from "@plumule/protocol";
import type { LockAnswer, LocksCall } from "../calls.ts";

/**
 * A job that has asked for its locks and has not given them back, in the order in which they came. `number` is that of the deployment's request: a
 * job that gave its locks up may ask again. `heldAt` null: it waits. `checkedAt`: when its deployment was last asked whether it still wants them.
 */
export type LockRequest = {
  position: number;
  deployment: DeploymentId;
  job: JobId;
  number: number;
  locks: readonly LockName[];
  askedAt: Millis;
  heldAt: Millis | null;
  checkedAt: Millis;
};

/** One request by its deployment's own words. */
type Named = Pick<LockRequest, "deployment" | "job" | "number">;

/** How long a request that others wait for is believed to be wanted still, ms, and how many of those in the way of one are asked at a time. */
const CHECK_MS = 30_000;
const CHECK_COUNT = 16;
/** The same for a request that nobody waits for. */
const OLD_MS = 3600_000;
const OLD_COUNT = 100;

/** What a deployment's word came to: the requests after it, those whose deployments are to be told how they stand, and its own answer. */
export type Settled = { requests: readonly LockRequest[]; tell: readonly LockRequest[]; answer: LockAnswer | null };

/**
 * A deployment gives back what its jobs do not want any more, and asks for the locks of the job whose turn it is.
 *
 * A request holds all of its locks as soon as no earlier one names any of them, and none before. So no two hold the same lock, none waits for a
 * later one, which is why there is no deadlock, and none is overtaken, which is why none starves. The price is that a free lock is kept for whoever
 * comes first, also while that one waits for another lock.
 */
export function settleLocks(
  requests: readonly LockRequest[],
  { deployment, released, wanted }: LocksCall,
  now: Millis,
): Settled {
  const kept = released.reduce((left, one) => release(left, { deployment, ...one }), requests);
  if (wanted === null) return withAnswer(promote(kept, now), requests, null);
  const known = kept.find((one) => one.deployment === deployment && one.job === wanted.job);
  if (known === undefined && kept.length >= LIMITS.lockRequests) {
    const wait = { name: wanted.locks[0] ?? "", ahead: kept.length };
    return withAnswer(promote(kept, now), requests, { number: wanted.number, wait });
  }
  const position = (requests.at(-1)?.position ?? 0) + 1;
  const asked: LockRequest[] =
    known === undefined
      ? [...kept, { position, deployment, ...wanted, askedAt: now, heldAt: null, checkedAt: now }]
      : kept.map((one) => (one === known && one.number < wanted.number ? { ...one, number: wanted.number } : one));
  const settled = promote(asked, now);
  const own = settled.find((one) => one.deployment === deployment && one.job === wanted.job);
  if (own === undefined) throw new Error(`the request of job ${wanted.job} is not among the requests`);
  const wait = waitOf(settled, own);
  const checked = wait === null ? settled : check(settled, own, now);
  return withAnswer(checked, requests, { number: own.number, wait }, own);
}

/** Takes a request away, up to its number: a request of the same job that came later stays. */
export function release(requests: readonly LockRequest[], { deployment, job, number }: Named): readonly LockRequest[] {
  const gone = requests.find((one) => one.deployment === deployment && one.job === job && one.number <= number);
  return gone === undefined ? requests : requests.filter((one) => one !== gone);
}

/** Gives their locks to all whose turn it is. */
function promote(requests: readonly LockRequest[], now: Millis): readonly LockRequest[] {
  const taken = new Set<LockName>();
  return requests.map((one) => {
    const isFree = one.locks.every((name) => !taken.has(name));
    for (const name of one.locks) taken.add(name);
    return isFree && one.heldAt === null ? { ...one, heldAt: now, checkedAt: now } : one;
  });
}

/** Has those asked who are in the way of a request, unless they were asked a moment ago: a deployment may have forgotten, or its word got lost. */
function check(requests: readonly LockRequest[], own: LockRequest, now: Millis): readonly LockRequest[] {
  const due = new Set(
    before(requests, own)
      .filter(({ checkedAt }) => checkedAt + CHECK_MS <= now)
      .slice(0, CHECK_COUNT),
  );
  return requests.map((one) => (due.has(one) ? { ...one, checkedAt: now } : one));
}

/**
 * Has those asked of whom nothing was heard for long, some at a time: nobody may wait for what a deployment has forgotten, and it would be held for ever.
 */
export function checkOld(requests: readonly LockRequest[], now: Millis): Settled {
  const old = new Set(requests.filter(({ checkedAt }) => checkedAt + OLD_MS <= now).slice(0, OLD_COUNT));
  return withAnswer(
    requests.map((one) => (old.has(one) ? { ...one, checkedAt: now } : one)),
    requests,
    null,
  );
}

/** Who came before a request and names one of its locks. */
function before(requests: readonly LockRequest[], own: LockRequest): LockRequest[] {
  return requests.filter((one) => one.position < own.position && one.locks.some((name) => own.locks.includes(name)));
}

/** What a request waits for, null when it holds its locks: of those in its way one that works, else the first. */
function waitOf(requests: readonly LockRequest[], own: LockRequest): LockWait | null {
  if (own.heldAt !== null) return null;
  const ahead = before(requests, own);
  const holder = ahead.find(({ heldAt }) => heldAt !== null) ?? ahead[0];
  const name = own.locks.find((one) => holder?.locks.includes(one) === true);
  if (holder === undefined || name === undefined) throw new Error(`nothing is in the way of job ${own.job}`);
  const { deployment, job, heldAt } = holder;
  return {
    name,
    ahead: ahead.filter(({ locks }) => locks.includes(name)).length,
    holder: { deployment, job, state: heldAt === null ? "waits" : "works" },
  };
}

/** Told is whoever holds its locks since this decision or is to be asked, but for the one that is answered. */
function withAnswer(
  after: readonly LockRequest[],
  requests: readonly LockRequest[],
  answer: LockAnswer | null,
  own: LockRequest | null = null,
): Settled {
  const known = new Map(requests.map((one) => [one.position, one]));
  const isNews = ({ position, heldAt, checkedAt }: LockRequest): boolean => {
    const was = known.get(position);
    return position !== own?.position && (was?.heldAt !== heldAt || was.checkedAt !== checkedAt);
  };
  return { requests: after, tell: after.filter(isNews), answer };
}
