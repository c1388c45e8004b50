import {
  appendLog,
  appendStandaloneLog,
  EXEC_SUBPROTOCOL,
  findWork,
  getLog,
  heartbeatRun,
  isRefusal,
  joinExec,
  LIMITS,
  openExec,
  pollWork,
  postResult,
  PROTOCOL_VERSION_FLOOR,
  recordStandalone,
  refuse,
  type Refusal,
  reportRunEvents,
  type RunId,
} from "@plumule/protocol";
import type { LogSlice } from "../../durable-objects/deployment/calls.ts";
import { deploymentObject, namespaceObject, poolObject } from "../../durable-objects/shared/names.ts";
import { type App, type AppContext, implement } from "../implement.ts";
import { placeOfRun, rememberPlace } from "../locate.ts";
import { offeredSubprotocols, upgraded } from "./streams.ts";

const NO_LEASE = refuse("unauthenticated", "This needs the lease token of the run as bearer.");

/** The runner's hot path, and the log's readers. Only the Pool (poll) and the Deployment (all else) are asked. */
export function runRoutes(app: App): void {
  implement(app, pollWork, async ({ params, body, principal, env }) => {
    if (principal.kind !== "runner") return refuse("forbidden", "Only a runner's session may poll.");
    if (body.protocol < PROTOCOL_VERSION_FLOOR)
      return refuse(
        "protocol-too-old",
        `This runner speaks version ${body.protocol} of the protocol; the oldest that is served is ${PROTOCOL_VERSION_FLOOR}.`,
      );
    // The session says which pool; the body repeats it so that a runner notices when it was moved.
    if (body.pool !== principal.pool)
      return refuse("forbidden", `This runner belongs to the pool \`${principal.pool}\`.`, {
        next: "Begin a new session; its answer names the pool.",
      });
    const answer = await poolObject(env, params.ns, principal.pool).poll({ runner: principal.runner, body });
    if (answer !== null && ("drain" in answer || "exec" in answer)) return { status: 202, body: answer };
    return answer === null ? { status: 204, body: null } : ok(answer);
  });
  implement(app, heartbeatRun, async ({ params: { ns, deployment, run }, body, bearer: leaseToken, env }) =>
    leaseToken === null
      ? NO_LEASE
      : ok(await deploymentObject(env, ns, deployment).heartbeat({ run, leaseToken, body })),
  );
  implement(app, reportRunEvents, async ({ params: { ns, deployment, run }, body, bearer: leaseToken, env }) =>
    leaseToken === null ? NO_LEASE : ok(await deploymentObject(env, ns, deployment).report({ run, leaseToken, body })),
  );
  implement(
    app,
    appendLog,
    async ({ params: { ns, deployment, run }, query, bytes, bearer: leaseToken, env, request }) => {
      if (leaseToken === null) return NO_LEASE;
      const isPacked = request.headers.get("content-encoding") === appendLog.bodyEncoding;
      const body = isPacked ? { packed: bytes } : { bytes };
      return ok(await deploymentObject(env, ns, deployment).appendLog({ run, leaseToken, ...query, ...body }));
    },
  );
  implement(app, postResult, async ({ params: { ns, deployment, run }, body, bearer: leaseToken, env }) =>
    leaseToken === null ? NO_LEASE : ok(await deploymentObject(env, ns, deployment).result({ run, leaseToken, body })),
  );
  implement(app, openExec, async ({ params: { ns, run }, body, principal, requestId, env }) => {
    const place = await placeOfRun(env, ns, run, principal);
    if (isRefusal(place)) return place;
    const answer = await place.object.openExec({ actor: principal.actor, requestId, run, body });
    return isRefusal(answer) ? answer : { status: 201, body: answer };
  });
  implement(app, joinExec, async ({ params: { ns, deployment }, request, env }) => {
    const refused = refuseUpgrade(request);
    if (refused !== null) return refused;
    return upgraded(await deploymentObject(env, ns, deployment).fetch(request));
  });
  implement(app, getLog, async ({ params, query, principal, env, c }) => {
    const range = rangeOf(c, query);
    if (isRefusal(range)) return range;
    const place = await placeOfRun(env, params.ns, params.run, principal);
    if (isRefusal(place)) return place;
    const slice = await place.object.readLog({ run: params.run, offset: range.offset, limit: range.limit });
    if (isRefusal(slice)) return slice;
    return logAnswer(params.run, slice, range.partial && slice.bytes.byteLength > 0);
  });
}

/** Bytes of a log as an answer; `partial`: to a request for a range. */
function logAnswer(run: RunId, { bytes, offset, size, complete, sha256 }: LogSlice, partial: boolean): Response {
  const headers = new Headers({
    "content-type": "text/plain; charset=utf-8",
    "accept-ranges": "bytes",
    "plumule-log-size": String(size),
    "plumule-log-complete": String(complete),
    // Whoever opens it in a browser gets a file, never a page.
    "content-disposition": `attachment; filename="${run}.log"`,
  });
  if (sha256 !== null) headers.set("plumule-log-sha256", sha256);
  if (partial)
    headers.set("content-range", `bytes ${offset}-${offset + bytes.byteLength - 1}/${complete ? size : "*"}`);
  return new Response(bytes as Uint8Array<ArrayBuffer>, { status: partial ? 206 : 200, headers });
}

/** What runners tell of runs that they gave themselves. */
export function standaloneRoutes(app: App): void {
  implement(app, findWork, async ({ params: { ns, deployment }, query, env }) => {
    const work = { ...query, configurationSha256: query.configurationSha256 ?? null };
    return ok(await deploymentObject(env, ns, deployment).findWork({ work }));
  });
  implement(app, recordStandalone, async ({ params: { ns, deployment }, body, principal, env }) => {
    if (principal.kind !== "runner") return refuse("forbidden", "Only a runner tells of its own runs.");
    // Its id was made by the runner: it must not be that of a job elsewhere.
    const place = await namespaceObject(env, ns).locate(body.job);
    if (place !== null && place !== deployment)
      return refuse("conflict", `Job ${body.job} is one of another deployment.`);
    const answer = await deploymentObject(env, ns, deployment).recordStandalone({ runner: principal.runner, body });
    if (!isRefusal(answer) && answer.recorded) rememberPlace(ns, body.job, deployment);
    return ok(answer);
  });
  implement(
    app,
    appendStandaloneLog,
    async ({ params: { ns, deployment, run }, query: { offset }, bytes, principal, env }) => {
      if (principal.kind !== "runner") return refuse("forbidden", "Only a runner tells of its own runs.");
      const { runner } = principal;
      return ok(await deploymentObject(env, ns, deployment).appendStandaloneLog({ run, runner, offset, bytes }));
    },
  );
}

/** Either end shows what it was given for the session as a second subprotocol, as a browser would: no URL holds it. */
function refuseUpgrade(request: Request): Refusal | null {
  const offered = offeredSubprotocols(request);
  const isSocket = request.headers.get("upgrade")?.toLowerCase() === "websocket";
  if (isSocket && offered.includes(EXEC_SUBPROTOCOL)) return null;
  return refuse("upgrade-required", `This is a WebSocket with the subprotocol ${EXEC_SUBPROTOCOL}.`, {
    headers: { upgrade: "websocket", "sec-websocket-protocol": EXEC_SUBPROTOCOL },
  });
}

/** One range: `Range: bytes=a-b` or `a-`, else the query. Suffix ranges and lists are not served; the size is in the headers. */
function rangeOf(
  c: AppContext,
  query: { offset?: number | undefined; limit?: number | undefined },
): { offset: number; limit: number; partial: boolean } | Refusal {
  const header = c.req.header("range");
  if (header === undefined)
    return { offset: query.offset ?? 0, limit: query.limit ?? LIMITS.logReadBytes, partial: false };
  const match = /^bytes=(\d{1,12})-(\d{1,12})?$/.exec(header);
  const from = Number(match?.[1]);
  const to = match?.[2] === undefined ? from + LIMITS.logReadBytes - 1 : Number(match[2]);
  if (match === null || to < from)
    return refuse("invalid-parameter", "Only one range of the form `bytes=first-last` or `bytes=first-` is served.", {
      errors: [{ pointer: "Range", detail: "not a range" }],
    });
  return { offset: from, limit: Math.min(to - from + 1, LIMITS.logReadBytes), partial: true };
}

function ok<T>(answer: T | Refusal): { status: 200; body: T } | Refusal {
  return isRefusal(answer) ? answer : { status: 200, body: answer };
}
