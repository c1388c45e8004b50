import {
  approveJob,
  cancelDeployment,
  cancelJob,
  deleteDeployment,
  describeLockWait,
  getCommitRuns,
  getDeployment,
  getDerivations,
  getJob,
  getRun,
  getStatements,
  isRefusal,
  looksLikeSummary,
  readableIn,
  type JobView,
  LIMITS,
  listDeployments,
  listJobs,
  matchJob,
  type Principal,
  type Refusal,
  rerunJob,
  resolveJob,
  setSchedule,
  submitJob,
  type SubmitAnswer,
  type SubmitBody,
} from "@plumule/protocol";
import type { Env } from "../../durable-objects/env.ts";
import { deploymentObject, namespaceObject } from "../../durable-objects/shared/names.ts";
import { askPanel, confine } from "../auth.ts";
import { acceptedProtocol, guardOf } from "../guard.ts";
import { audienceOf } from "../audience.ts";
import { type Answer, type App, implement } from "../implement.ts";
import { placeOfJob, placeOfRun, rememberPlace } from "../locate.ts";

/** Runners that are told of beside a job, unless the caller says otherwise. */
const MATCHES = 20;

/** Deployments and their jobs: submit, read, list, act. */
export function jobRoutes(app: App): void {
  implement(app, submitJob, async ({ params, query, body, bytes, principal, request, env }) => {
    const guard = await guardOf(request, bytes);
    if (isRefusal(guard)) return guard;
    const filled = await withSecrets(env, params.ns, body);
    if (isRefusal(filled)) return filled;
    const answer = await deploymentObject(env, params.ns, params.deployment).submit({
      actor: principal.actor,
      body: filled,
      guard,
      dryRun: query.dryRun === "1",
    });
    return isRefusal(answer) ? answer : submitted(params.ns, answer);
  });
  implement(app, rerunJob, async ({ params, bytes, principal, request, env }) => {
    const [guard, place] = await Promise.all([
      guardOf(request, bytes),
      placeOfJob(env, params.ns, params.job, principal),
    ]);
    if (isRefusal(guard)) return guard;
    if (isRefusal(place)) return place;
    const answer = await place.object.rerun({ actor: principal.actor, job: params.job, guard });
    return isRefusal(answer) ? answer : submitted(params.ns, answer);
  });
  implement(app, deleteDeployment, async ({ params, body, bytes, principal, request, env }) => {
    const guard = await guardOf(request, bytes);
    if (isRefusal(guard)) return guard;
    const answer = await deploymentObject(env, params.ns, params.deployment).remove({
      actor: principal.actor,
      body,
      guard,
    });
    if (isRefusal(answer)) return answer;
    return "job" in answer
      ? { status: 202, body: answer, headers: locationOf(params.ns, answer) }
      : { status: 200, body: answer };
  });
  stopRoutes(app);
  listRoutes(app);
  readRoutes(app);
}

function stopRoutes(app: App): void {
  implement(app, cancelDeployment, async ({ params, body, bytes, principal, request, env }) => {
    const guard = await guardOf(request, bytes);
    if (isRefusal(guard)) return guard;
    const answer = await deploymentObject(env, params.ns, params.deployment).cancelAll({
      actor: principal.actor,
      body,
      guard,
    });
    return isRefusal(answer) ? answer : { status: 202, body: answer };
  });
  implement(
    app,
    setSchedule,
    async ({ params: { ns, deployment, schedule: name }, body: { paused }, principal, env }) =>
      ok(await deploymentObject(env, ns, deployment).setSchedule({ actor: principal.actor, name, paused })),
  );
  implement(app, cancelJob, async ({ params, body, bytes, principal, request, env }) => {
    const [guard, place] = await Promise.all([
      guardOf(request, bytes),
      placeOfJob(env, params.ns, params.job, principal),
    ]);
    if (isRefusal(guard)) return guard;
    if (isRefusal(place)) return place;
    const answer = await place.object.cancelJob({ actor: principal.actor, job: params.job, body, guard });
    return isRefusal(answer) ? answer : { status: 202, body: answer };
  });
  implement(app, approveJob, async ({ params, body, principal, request, env }) => {
    const place = await placeOfJob(env, params.ns, params.job, principal);
    if (isRefusal(place)) return place;
    return ok(
      await place.object.approve({
        actor: principal.actor,
        job: params.job,
        commit: body.commit ?? null,
        ...(body.plan === undefined ? {} : { plan: body.plan }),
        ...(body.approval === undefined
          ? {}
          : { approval: { envelope: body.approval, audience: audienceOf(env, request, params.ns) } }),
      }),
    );
  });
  implement(app, resolveJob, async ({ params, body, principal, env }) => {
    const place = await placeOfJob(env, params.ns, params.job, principal);
    if (isRefusal(place)) return place;
    return ok(
      await place.object.resolve({
        actor: principal.actor,
        job: params.job,
        outcome: body.outcome,
        reason: body.reason ?? null,
      }),
    );
  });
}

/** The body with the boxes of stored secrets. Only a job that names one costs the question. */
async function withSecrets(env: Env, ns: string, body: SubmitBody): Promise<SubmitBody | Refusal> {
  if (body.secrets?.some(({ box }) => box === undefined) !== true) return body;
  const secrets = await namespaceObject(env, ns).fillSecrets({ secrets: body.secrets });
  return isRefusal(secrets) ? secrets : { ...body, secrets };
}

function listRoutes(app: App): void {
  implement(app, listDeployments, async ({ params, query, env }) =>
    ok(
      await namespaceObject(env, params.ns).listDeployments({
        state: query.state ?? null,
        prefix: query.prefix ?? null,
        cursor: query.cursor ?? null,
        limit: query.limit ?? 50,
      }),
    ),
  );
  implement(app, listJobs, async ({ params, query, env }) =>
    ok(
      await namespaceObject(env, params.ns).listJobs({
        state: query.state ?? null,
        deployment: query.deployment ?? null,
        commit: query.commit ?? null,
        cursor: query.cursor ?? null,
        limit: query.limit ?? 50,
      }),
    ),
  );
  implement(app, getCommitRuns, async ({ params, query, env }) => {
    const page = await namespaceObject(env, params.ns).listJobs({
      state: null,
      deployment: null,
      commit: params.commit,
      cursor: null,
      limit: LIMITS.listPage,
    });
    if (isRefusal(page)) return page;
    const all = page.items
      .filter((job) => job.run !== null)
      .map((job) => ({ job, node: job.runner, run: job.run, status: commitStatus(job) }));
    const wanted = all.filter(
      (one) =>
        (query.status === undefined || one.status === query.status) &&
        (query.node === undefined || one.node === query.node),
    );
    return { status: 200, body: { items: query.latest === "1" ? wanted.slice(0, 1) : wanted } };
  });
}

function readRoutes(app: App): void {
  implement(app, getDeployment, async ({ params, request, env }) => {
    const snapshot = await deploymentObject(env, params.ns, params.deployment).read();
    if (isRefusal(snapshot)) return snapshot;
    const etag = `"r${snapshot.deployment.revision}-${snapshot.cursor.split(":")[1]}"`;
    if (request.headers.get("if-none-match") === etag) return { status: 304, body: null, headers: { etag } };
    return { status: 200, body: snapshot, headers: { etag } };
  });
  implement(app, getJob, async ({ params, principal, request, env }) => {
    const place = await placeOfJob(env, params.ns, params.job, principal);
    if (isRefusal(place)) return place;
    const detail = await place.object.job(params.job);
    if (isRefusal(detail)) return detail;
    const job = await withinSight(env, principal, detail.job);
    return ok({ ...detail, job, spec: readableIn(acceptedProtocol(request), detail.spec) });
  });
  implement(app, matchJob, async ({ params, query, principal, env }) => {
    const place = await placeOfJob(env, params.ns, params.job, principal);
    if (isRefusal(place)) return place;
    // Which runners there are is the namespace's affair.
    const beyond = confine(principal, null);
    if (beyond !== null) return beyond;
    const { runner = null, limit = MATCHES } = query;
    return ok(await place.object.match({ job: params.job, runner, limit }));
  });
  implement(app, getDerivations, async ({ params, principal, env }) => {
    const place = await placeOfJob(env, params.ns, params.job, principal);
    return isRefusal(place) ? place : ok(await place.object.derivations(params.job));
  });
  implement(app, getStatements, async ({ params, principal, env, request }) => {
    const place = await placeOfJob(env, params.ns, params.job, principal);
    if (isRefusal(place)) return place;
    const envelopes = await place.object.statements(params.job);
    if (isRefusal(envelopes)) return envelopes;
    // A client of version 1, which says no more than that it reads JSON, would take a statement of a kind that it does not know for a false one.
    const isOld = request.headers.get("accept") === "application/json";
    const readable = isOld ? envelopes.filter((envelope) => !looksLikeSummary(envelope)) : envelopes;
    const lines = readable.map((envelope) => `${JSON.stringify(envelope)}\n`).join("");
    return new Response(lines, {
      headers: {
        "content-type": "application/vnd.in-toto.bundle",
        "content-disposition": `attachment; filename="${params.job}.intoto.jsonl"`,
      },
    });
  });
  implement(app, getRun, async ({ params, principal, env }) => {
    const place = await placeOfRun(env, params.ns, params.run, principal);
    return isRefusal(place) ? place : ok(await place.object.run(params.run));
  });
}

/** A job as this caller may see it: who is in the way of its lock is shown to those who may read that one too. */
async function withinSight(env: Env, principal: Principal, job: JobView): Promise<JobView> {
  const { lock } = job.waiting ?? {};
  if (job.waiting === null || lock?.holder === undefined) return job;
  const { holder, ...rest } = lock;
  const hidden =
    confine(principal, holder.deployment) ??
    (await askPanel(env, principal, getJob, { deployment: holder.deployment }));
  return hidden === null ? job : { ...job, waiting: { ...job.waiting, lock: rest, detail: describeLockWait(rest) } };
}

/** radicle-job knows three states; everything that ended without success is `failed` there. */
function commitStatus(job: JobView): "started" | "succeeded" | "failed" {
  if (job.finishedAt === null) return "started";
  return job.state === "succeeded" || job.state === "skipped" ? "succeeded" : "failed";
}

function ok<T>(answer: T | Refusal): { status: 200; body: T } | Refusal {
  return isRefusal(answer) ? answer : { status: 200, body: answer };
}

function submitted(ns: string, answer: SubmitAnswer): Answer<typeof submitJob> {
  const headers = locationOf(ns, answer);
  return answer.dryRun || answer.joined
    ? { status: 200, body: answer, headers }
    : { status: 202, body: answer, headers };
}

function locationOf(ns: string, { job, dryRun }: SubmitAnswer): { location: string } {
  if (!dryRun) rememberPlace(ns, job.id, job.deployment);
  return { location: `/v1/${ns}/jobs/${job.id}` };
}
