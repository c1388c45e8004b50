import { withReleases } from "#durable-objects/deployment/core/locks.ts";
import type { Job } from "#durable-objects/deployment/core/model.ts";
import type { LockRequest } from "#durable-objects/namespace/core/locks.ts";
import { type LockCore, REAL_LOCKS } from "./lock-world.ts";
import { NOW } from "./world.ts";

/** A bug of locks that somebody might write. `scope` names the world in which it shows; `caughtBy` how the properties begin of which one has to fail. */
export type LockMutation = { name: string; scope: string; core: LockCore; caughtBy: readonly string[] };

const LATE = "two deployments, one lock, late copies";
const PLAIN = "two deployments, one lock, two attempts";
const UNSEEN = "two deployments, one lock, effects whose end nobody saw";
const OVERTAKING = "two jobs of a deployment that overtake each other, and one of another, late copies";
const SEVERAL = "three deployments, two locks, one of them needs both";

/** A namespace that makes something else of its requests. */
function settling(
  change: (settled: ReturnType<LockCore["settle"]>, before: readonly LockRequest[]) => typeof settled,
): LockCore {
  return { ...REAL_LOCKS, settle: (requests, call, now) => change(REAL_LOCKS.settle(requests, call, now), requests) };
}

function withoutLocks({ locks: _locks, ...job }: Job): Job {
  return job;
}

/** A namespace that tells nobody that it is its turn, and asks nobody: whoever waits asks by itself, so that all goes on as long as no word comes late. */
export const SILENT: LockCore = settling((settled) => ({ ...settled, tell: [] }));

/** Bugs of locks. */
export const LOCK_MUTATIONS: readonly LockMutation[] = [
  {
    name: "whoever asks holds",
    scope: PLAIN,
    caughtBy: ["P6 nobody is overtaken", "P1 a lock"],
    core: settling((settled) => ({
      ...settled,
      requests: settled.requests.map((one) => ({ ...one, heldAt: one.heldAt ?? 1 })),
    })),
  },
  {
    name: "an answer counts as a grant",
    scope: PLAIN,
    caughtBy: ["P1 a lock"],
    core: {
      ...REAL_LOCKS,
      said: (state, word, { taken, news }, moment) =>
        REAL_LOCKS.said(state, word, { taken, news: news === null ? null : { ...news, wait: null } }, moment),
    },
  },
  {
    name: "a free lock goes to whoever needs no other",
    scope: SEVERAL,
    caughtBy: ["P6 nobody is overtaken"],
    core: settling((settled) => ({
      ...settled,
      requests: settled.requests.map((one) => {
        const taken = settled.requests.some(
          (other) => other !== one && other.heldAt !== null && other.locks.some((name) => one.locks.includes(name)),
        );
        return taken ? one : { ...one, heldAt: one.heldAt ?? 1 };
      }),
    })),
  },
  {
    name: "nobody is asked whether a lock is still wanted",
    scope: LATE,
    caughtBy: ["from every state"],
    core: SILENT,
  },
  {
    name: "a lock that is not wanted is kept",
    scope: LATE,
    caughtBy: ["from every state"],
    core: { ...REAL_LOCKS, isWanted: () => true },
  },
  {
    name: "a lock that is wanted is taken back",
    scope: LATE,
    caughtBy: ["P1 a lock"],
    core: { ...REAL_LOCKS, isWanted: () => false },
  },
  {
    name: "word that is given back tells nothing of which request",
    scope: OVERTAKING,
    caughtBy: ["P1 a lock"],
    core: {
      ...REAL_LOCKS,
      settle: (requests, call, now) =>
        REAL_LOCKS.settle(
          requests,
          { ...call, released: call.released.map((one) => ({ ...one, number: Infinity })) },
          now,
        ),
    },
  },
  {
    name: "an effect whose end nobody saw gives its lock to the next",
    scope: UNSEEN,
    caughtBy: ["P1 a lock"],
    core: {
      ...REAL_LOCKS,
      committed: (change) => {
        const unseen = change.jobs.filter(({ state }) => state === "unknown");
        const jobs = change.jobs.map((job) => (unseen.includes(job) ? withoutLocks(job) : job));
        return { ...change, jobs, state: { ...change.state, lane: withReleases(change.state.lane, unseen, NOW) } };
      },
    },
  },
];
