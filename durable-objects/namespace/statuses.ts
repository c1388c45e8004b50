import { type JobId, type Millis, toHex, utf8, hmacSha256, isValidAt } from "@plumule/protocol";
import { checkOutgoingUrl, type Outgoing } from "../shared/outgoing.ts";
import type { NamespaceContext } from "./context.ts";
import { type CommitStatus, goesForward, reportOf, type StatusReport } from "./core/status.ts";
import type { Courier } from "./outbox.ts";
import {
  type Delivery,
  deleteStatusJobs,
  findDelivery,
  insertStatusJob,
  readCopies,
  readDeliveriesOfJob,
  updateDelivery,
} from "./store/deliveries.ts";
import { findJob, readSteps } from "./store/jobs.ts";
import { insertOutbox } from "./store/outbox.ts";
import { readTriggers } from "./store/settings.ts";

/** A report on its way to whoever asked for it. */
type Telling = { delivery: string; report: StatusReport };

/** Tells of a job that has changed, or whose steps have, to those whose webhooks asked. Part of the transaction that stores the change. */
export function tellOfJob(context: NamespaceContext, job: JobId, now: Millis): void {
  for (const id of readDeliveriesOfJob(context.sql, job)) tellOfDelivery(context, id, now);
}

/** Works out what has become of a delivery, and puts what is new into the outbox: for the delivery and for its copies. */
export function tellOfDelivery(context: NamespaceContext, id: string, now: Millis): void {
  const { sql } = context;
  const delivery = findDelivery(sql, id);
  if (delivery === null) return;
  const asking = [delivery, ...readCopies(sql, delivery)];
  if (asking.every(({ status }) => status === null)) return;
  const report = reportOf(
    delivery.results.flatMap((result) => {
      const view = result.job === null ? null : findJob(sql, result.job);
      const steps = view?.stepCount === undefined ? [] : readSteps(sql, view);
      return [view, ...steps].map((one) => ({ ...result, view: one }));
    }),
  );
  for (const one of asking) if (one.status !== null) enqueue(context, one, one.status, report, now);
  if (report.state === "success" || report.state === "failure") deleteStatusJobs(sql, id);
  else for (const { job } of delivery.results) if (job !== null) insertStatusJob(sql, job, id);
}

function enqueue(
  { sql }: NamespaceContext,
  delivery: Delivery,
  status: CommitStatus,
  report: StatusReport,
  now: Millis,
): void {
  if (!goesForward(status.state, report.state)) return;
  const allowed = checkTarget(delivery, hostsOf(sql, delivery.hook));
  if (!allowed.ok) {
    updateDelivery(sql, { ...delivery, status: { ...status, detail: `not told: ${allowed.detail}` } });
    return;
  }
  const telling: Telling = { delivery: delivery.id, report };
  insertOutbox(sql, "status", telling, now, `status ${delivery.id}`);
  updateDelivery(sql, {
    ...delivery,
    status: { ...status, state: report.state, detail: `${report.state} is being told` },
  });
}

function hostsOf(sql: SqlStorage, hook: string): readonly string[] {
  return readTriggers(sql).hooks.find(({ id }) => id === hook)?.statusHosts ?? [];
}

function checkTarget({ push, status }: Delivery, hosts: readonly string[]): ReturnType<typeof checkOutgoingUrl> {
  const own = push === null ? null : new URL(push.audience).origin;
  const url = checkOutgoingUrl(status?.target.url ?? "", { hosts, own });
  return url.ok || hosts.length > 0 ? url : { ...url, detail: `${url.detail}; the hook names no \`statusHosts\`` };
}

/**
 * Tells Radicle Garden the state of a commit (its `commit_status_url`), signed with the hook's secret. Older states that wait behind a host that
 * is away are left out; the last one is told, or in the end it is written down why not.
 */
export function statusCourier(context: NamespaceContext, outgoing: Outgoing): Courier {
  const { sql } = context;
  const note = (id: string, detail: string): void => {
    const delivery = findDelivery(sql, id);
    if (delivery?.status == null) return;
    updateDelivery(sql, { ...delivery, status: { ...delivery.status, detail } });
  };
  return {
    givesUp: true,
    async deliver(payload) {
      const { delivery: id, report } = JSON.parse(payload) as Telling;
      const delivery = findDelivery(sql, id);
      // A newer state waits behind this one in the same lane.
      if (delivery?.status == null || delivery.status.state !== report.state) return () => undefined;
      const hook = readTriggers(sql).hooks.find((one) => one.id === delivery.hook);
      const url = checkTarget(delivery, hook?.statusHosts ?? []);
      if (!url.ok) return () => note(id, `not told: ${url.detail}`);
      const usable = (hook?.secrets ?? []).filter((secret) => isValidAt(secret, Date.now()));
      const secret = usable.find(({ name }) => name === delivery.status?.secret) ?? usable[0];
      if (secret === undefined) return () => note(id, "not told: the hook has no secret to sign with");
      const body = bodyOf(delivery, delivery.status, report);
      const answer = await outgoing.post(url.value, {
        body,
        headers: {
          "content-type": "application/json",
          "x-garden-signature-256": `sha256=${toHex(await hmacSha256(utf8(secret.secret), utf8(body)))}`,
        },
      });
      if (!answer.ok && answer.code === "resting") return { later: answer.until, detail: answer.detail };
      if (!answer.ok) throw new Error(answer.detail);
      if (answer.status >= 500 || answer.status === 429 || answer.status === 408)
        throw new Error(`${url.value.host} answered ${answer.status}`);
      const told = answer.status >= 200 && answer.status < 300;
      return () =>
        note(id, told ? `${report.state} was told` : `not told: ${url.value.host} answered ${answer.status}`);
    },
    park: (payload, reason) => note((JSON.parse(payload) as Telling).delivery, `given up: ${reason}`),
  };
}

/** The body of Garden's `commit-status` (radicle-garden/always-on-node, src/routes/api/commit-status). */
function bodyOf({ push }: Delivery, { target }: CommitStatus, { state, description, job }: StatusReport): string {
  const page = push === null || job === null ? null : `${new URL(push.audience).origin}/j/${job}`;
  return JSON.stringify({
    node_id: target.node,
    repo_id: target.repository,
    sha: target.commit,
    context: target.context,
    state,
    description,
    ...(page === null ? {} : { target_url: page }),
  });
}
