import {
  type DeploymentId,
  formatTime,
  isRefusal,
  type JobId,
  LIMITS,
  type LockView,
  type Refusal,
} from "@plumule/protocol";
import { deploymentObject } from "../shared/names.ts";
import { bounded } from "./bounded.ts";
import type { LockAnswer, LocksCall, Page } from "./calls.ts";
import type { NamespaceContext } from "./context.ts";
import { checkOld, type LockRequest, settleLocks } from "./core/locks.ts";
import { formatPosition, parsePosition } from "./core/positions.ts";
import type { Courier } from "./outbox.ts";
import { findJob } from "./store/jobs.ts";
import { readLockRequests, saveLockRequests } from "./store/locks.ts";
import { insertReminder } from "./store/outbox.ts";

/** The locks of a namespace. Only deployments whose jobs name some ever ask. */
export type Locks = {
  settle(call: LocksCall): LockAnswer | null;
  list(call: { cursor: string | null; limit: number }): Page<LockView> | Refusal;
};

/** Makes the locks of a namespace. */
export function createLocks(context: NamespaceContext): Locks {
  const { sql } = context;
  return {
    settle(call) {
      const now = Date.now();
      const requests = readLockRequests(sql);
      const settled = settleLocks(requests, call, now);
      if (settled.requests !== requests) context.commit("broker", now, () => save(sql, requests, settled, now));
      const { answer } = settled;
      const holder = answer?.wait?.holder;
      return answer !== null && answer.wait !== null && holder !== undefined && isUnknown(sql, holder.job)
        ? { ...answer, wait: { ...answer.wait, holder: { ...holder, state: "unknown" } } }
        : answer;
    },

    list({ cursor, limit }) {
      const position = parsePosition("locks", cursor);
      if (isRefusal(position)) return position;
      const requests = readLockRequests(sql);
      const names = [...new Set(requests.flatMap(({ locks }) => locks))].sort();
      const found = names.filter((name) => position.key === null || name > position.key).slice(0, limit + 1);
      const items = found.slice(0, limit).map((name) => viewOf(sql, name, requests));
      const last = found.length > limit ? items.at(-1) : undefined;
      return { items, nextCursor: last === undefined ? null : formatPosition("locks", last.name) };
    },
  };
}

type Reminder = { deployment: DeploymentId; job: JobId };

/**
 * Tells a deployment how a request of its job stands as of now, and takes it away when the deployment does not want it any more: it never asked, it forgot, or its
 * word that it gives it back was overtaken by the request.
 */
export function lockCourier({ sql, env, namespace }: NamespaceContext): Courier {
  const find = ({ deployment, job }: Reminder): LockRequest | undefined =>
    readLockRequests(sql).find((one) => one.deployment === deployment && one.job === job);
  return {
    async deliver(payload) {
      const reminder = JSON.parse(payload) as Reminder;
      const request = find(reminder);
      if (request === undefined) return () => undefined;
      const { deployment, job, number, heldAt } = request;
      const call = { job, number, held: heldAt !== null };
      if (await bounded(deploymentObject(env, namespace, deployment).locks(call))) return () => undefined;
      return () => {
        const requests = readLockRequests(sql);
        const now = Date.now();
        save(sql, requests, settleLocks(requests, { deployment, released: [{ job, number }], wanted: null }, now), now);
      };
    },
    park: () => undefined,
  };
}

/** Has deployments asked about requests of which nothing was heard for long. Part of the transaction of a sweep; says whether there are requests at all. */
export function checkLocks(sql: SqlStorage, now: number): boolean {
  const requests = readLockRequests(sql);
  save(sql, requests, checkOld(requests, now), now);
  return requests.length > 0;
}

/** Part of a transaction. */
function save(
  sql: SqlStorage,
  before: readonly LockRequest[],
  { requests, tell }: ReturnType<typeof settleLocks>,
  now: number,
): void {
  saveLockRequests(sql, before, requests);
  for (const { deployment, job } of tell)
    insertReminder(sql, "lock", { deployment, job } satisfies Reminder, now, `lock ${job}`);
}

/** Whether a job ended without anybody seeing how, as far as the index knows. */
function isUnknown(sql: SqlStorage, job: JobId): boolean {
  return findJob(sql, job)?.state === "unknown";
}

function viewOf(sql: SqlStorage, name: string, requests: readonly LockRequest[]): LockView {
  const line = requests.filter(({ locks }) => locks.includes(name));
  const [first] = line;
  const holder =
    first === undefined || first.heldAt === null
      ? null
      : {
          deployment: first.deployment,
          job: first.job,
          since: formatTime(first.heldAt),
          state: findJob(sql, first.job)?.state ?? null,
        };
  const waiting = holder === null ? line : line.slice(1);
  return {
    name,
    holder,
    waiting: waiting
      .slice(0, LIMITS.lockWaitersShown)
      .map(({ deployment, job, askedAt }) => ({ deployment, job, since: formatTime(askedAt) })),
    waitingCount: waiting.length,
  };
}
