import {
  type DeploymentId,
  type DeploymentView,
  type Event,
  type EventType,
  isRefusal,
  type JobId,
  jobCreatedAt,
  type JobState,
  type JobView,
  type NamespaceSnapshot,
  type Refusal,
  ruleFor,
  type TrustPolicy,
} from "@plumule/protocol";
import type { EventDraft } from "../shared/event-log.ts";
import type { AuditNote } from "./audit.ts";
import type { FencedWrite, Page, Published, PublishCall } from "./calls.ts";
import type { NamespaceContext } from "./context.ts";
import { formatPosition, type ListName, parsePosition } from "./core/positions.ts";
import { tellOfJob } from "./statuses.ts";
import { wasAudited } from "./store/audit.ts";
import {
  findDeploymentOfJob,
  findJob,
  findSeen,
  readDeployments,
  readJobs,
  readNewestDeployments,
  saveDeployment,
  saveJob,
} from "./store/jobs.ts";
import { readTrust } from "./store/settings.ts";

/** How long a job counts as young, and how long `locate` waits for one, ms. */
const YOUNG_MS = 10_000;
const LOCATE_MS = 2_000;
/** Jobs that may be waited for at a time, over all requests. */
const WAITING_MAX = 1_000;
/** What a watcher of the namespace starts from. */
const SNAPSHOT_DEPLOYMENTS = 200;
const SNAPSHOT_JOBS = 50;

/** The index of deployments and jobs. It follows the deployments, which alone know the truth. */
export type Listing = {
  publish(call: PublishCall): Published;
  locate(job: JobId): Promise<DeploymentId | null>;
  listDeployments(call: {
    state: string | null;
    prefix: string | null;
    cursor: string | null;
    limit: number;
  }): Page<DeploymentView> | Refusal;
  listJobs(call: {
    state: JobState | null;
    deployment: DeploymentId | null;
    commit: string | null;
    cursor: string | null;
    limit: number;
  }): Page<JobView> | Refusal;
};

/** The state that a subscription of the namespace starts from. */
export function readSnapshot(sql: SqlStorage, cursor: string): NamespaceSnapshot {
  const { jobs } = readJobs(sql, { state: null, deployment: null, commit: null, before: null, limit: SNAPSHOT_JOBS });
  return { deployments: readNewestDeployments(sql, SNAPSHOT_DEPLOYMENTS), jobs, cursor };
}

/** Makes the index. */
export function createListing(context: NamespaceContext): Listing {
  const { sql } = context;
  const waiting = createWaiting();

  return {
    publish(call) {
      const { deployment, jobs, removed, through } = call;
      for (const view of [deployment, ...jobs])
        if (view.namespace !== context.namespace)
          throw new Error(`a view of ${view.namespace} was published to ${context.namespace}`);
      const seen = findSeen(sql, deployment.id);
      // The same id under another birthday is a deployment that was made anew, and its events are numbered anew.
      const known = seen?.createdAt === deployment.createdAt ? seen.through : 0;
      const fenced = (call.fenced ?? []).filter(({ id }) => !wasAudited(sql, id));
      if (fenced.length > 0) context.commit("broker", Date.now(), (_, note) => fenced.map(fencedNote).forEach(note));
      if (through <= known) return { through: known };
      context.commit("broker", Date.now(), (emit, note) => {
        decisionsIn(sql, call.events).forEach(note);
        saveDeployment(sql, deployment, through, removed);
        for (const job of jobs) saveJob(sql, job);
        for (const job of jobs) tellOfJob(context, job.step?.parent ?? job.id, Date.now());
        for (const event of call.events) if (Number(event.sequence) > known) emit(forwarded(event));
      });
      for (const job of jobs) waiting.settle(job.id, deployment.id);
      const judge = toJudge(readTrust(sql), jobs);
      return judge.length === 0 ? { through } : { through, judge };
    },

    async locate(job) {
      const found = findDeploymentOfJob(sql, job);
      const ageMs = Date.now() - jobCreatedAt(job);
      return found !== null || Math.abs(ageMs) > YOUNG_MS ? found : waiting.wait(job);
    },

    listDeployments({ state, prefix, cursor, limit }) {
      const position = parsePosition("deployments", cursor);
      if (isRefusal(position)) return position;
      return pageOf(
        "deployments",
        readDeployments(sql, { state, prefix, after: position.key, limit: limit + 1 }),
        limit,
        null,
      );
    },

    listJobs({ state, deployment, commit, cursor, limit }) {
      const position = parsePosition("jobs", cursor);
      if (isRefusal(position)) return position;
      const { jobs, walkedTo } = readJobs(sql, { state, deployment, commit, before: position.key, limit: limit + 1 });
      return pageOf("jobs", jobs, limit, walkedTo);
    },
  };
}

/** What a deployment did that is worth a row of the audit log: approvals, and verdicts that are no agreement; that one is signed as it is. */
function decisionsIn(sql: SqlStorage, events: readonly Event[]): AuditNote[] {
  const held = new Set<JobId>();
  return events.flatMap(({ type, actor, data }): AuditNote[] => {
    const { job, verdict } = data;
    if (job === undefined) return [];
    const target = `jobs/${job.id}`;
    if (type === "job.held") held.add(job.id);
    // Only an approval makes a held job a queued one.
    if (type === "job.queued" && (held.delete(job.id) || findJob(sql, job.id)?.state === "held")) {
      const approver = job.stranger?.approvedBy ?? null;
      const commit = job.source === null ? "without a commit" : `commit ${job.source.commit}`;
      const detail = approver === null ? commit : `${commit}, signed by ${approver}`;
      return [{ action: "job.approved", target, actor, detail }];
    }
    if (type === "job.verdict" && verdict !== undefined && verdict.verdict !== "agreed")
      return [
        { action: "job.verdict", target, actor, detail: `${verdict.verdict}: ${verdict.detail}`, after: verdict },
      ];
    return [];
  });
}

function fencedNote({ id, run, runner, epoch, write }: FencedWrite): AuditNote {
  const detail =
    epoch === 0
      ? `${write} of a run without a lease, whose work had a result already`
      : `${write} under epoch ${epoch}, whose lease had been taken away`;
  return { action: "write.fenced", target: `runs/${run}`, actor: runner, requestId: id, detail };
}

/** An event of a deployment as the namespace's feed has it: a number of its own, and where it came from in `data.origin`. */
function forwarded({ type, subject, actor, time, data, source, sequence }: Event): EventDraft {
  return { type: type as EventType, subject, actor, time, data: { ...data, origin: { source, sequence } } };
}

function pageOf<T extends { id: string }>(
  list: ListName,
  found: readonly T[],
  limit: number,
  walkedTo: string | null,
): Page<T> {
  const items = found.slice(0, limit);
  const last = found.length > limit ? (items.at(-1)?.id ?? null) : walkedTo;
  return { items, nextCursor: last === null ? null : formatPosition(list, last) };
}

/** Those who wait for a job to appear in the index. In memory only: an eviction drops them, and they ask again. */
type Waiting = { wait(job: JobId): Promise<DeploymentId | null>; settle(job: JobId, deployment: DeploymentId): void };

function createWaiting(): Waiting {
  const waiting = new Map<JobId, Set<(deployment: DeploymentId | null) => void>>();
  let count = 0;
  return {
    wait(job) {
      if (count >= WAITING_MAX) return Promise.resolve(null);
      return new Promise((resolve) => {
        const finish = (deployment: DeploymentId | null): void => {
          clearTimeout(timer);
          count -= 1;
          const others = waiting.get(job);
          others?.delete(finish);
          if (others?.size === 0) waiting.delete(job);
          resolve(deployment);
        };
        const timer = setTimeout(() => finish(null), LOCATE_MS);
        count += 1;
        waiting.set(job, (waiting.get(job) ?? new Set()).add(finish));
      });
    },
    settle(job, deployment) {
      for (const finish of waiting.get(job) ?? []) finish(deployment);
    },
  };
}

/** The jobs that have ended with a result of which a policy that was put has something to say. Those with a quorum are judged anyway. */
function toJudge(policy: TrustPolicy | null, jobs: readonly JobView[]): JobId[] {
  if (policy === null) return [];
  const ended = jobs.filter(
    ({ state, quorum }) => (state === "succeeded" || state === "failed") && quorum === undefined,
  );
  return ended.filter(({ source }) => ruleFor(policy, source?.ref ?? "") !== null).map(({ id }) => id);
}
