import {
  type DeploymentId,
  type Endpoint,
  type EventsPage,
  getDeploymentEvents,
  getNamespaceEvents,
  isRefusal,
  LIMITS,
  type Principal,
  refuse,
  type Refusal,
  streamDeployment,
  streamNamespace,
  STREAM_SUBPROTOCOL,
} from "@plumule/protocol";
import type { Env } from "../../durable-objects/env.ts";
import { deploymentObject, namespaceObject } from "../../durable-objects/shared/names.ts";
import { admittedUpgrade } from "../../durable-objects/shared/handshake.ts";
import type { Admission } from "../../durable-objects/shared/subscription.ts";
import { admit, askPanel, authenticate, authorize, confine } from "../auth.ts";
import { type App, implement } from "../implement.ts";
import { countStranger } from "../rate.ts";

/** The doors of events: WebSocket, SSE and JSON history. All three read the same log of the same object. */
export function streamRoutes(app: App): void {
  implement(app, streamDeployment, async ({ params: { ns, deployment }, bearer, request, env }) => {
    const admitted = await admitWatcher(streamDeployment, env, ns, deployment, bearer, request);
    if (isRefusal(admitted)) return admitted;
    return upgraded(await deploymentObject(env, ns, deployment).fetch(admittedUpgrade(request.url, admitted)));
  });
  implement(app, streamNamespace, async ({ params: { ns }, bearer, request, env }) => {
    const admitted = await admitWatcher(streamNamespace, env, ns, null, bearer, request);
    if (isRefusal(admitted)) return admitted;
    return upgraded(await namespaceObject(env, ns).fetch(admittedUpgrade(request.url, admitted)));
  });
  implement(app, getDeploymentEvents, async ({ params, query, bearer, request, env }) => {
    const object = deploymentObject(env, params.ns, params.deployment);
    const history: History = (call) => object.history(call);
    return historyAnswer(
      request,
      query,
      stillAllowed(history, () => authenticate(env, params.ns, bearer)),
    );
  });
  implement(app, getNamespaceEvents, async ({ params, query, bearer, request, env }) => {
    const object = namespaceObject(env, params.ns);
    const history: History = (call) => object.history(call);
    return historyAnswer(
      request,
      query,
      stillAllowed(history, () => authenticate(env, params.ns, bearer)),
    );
  });
}

/** A history that looks at the credential again after a wait: one that was revoked meanwhile gets nothing any more. */
function stillAllowed(history: History, caller: () => Promise<Principal | Refusal>): History {
  return async (call) => {
    const page = await history(call);
    if (call.waitMs === 0 || isRefusal(page)) return page;
    const principal = await caller();
    return isRefusal(principal) ? principal : (authorize(principal, "read") ?? page);
  };
}

type HistoryCall = { since: string | null; limit: number; waitMs: number };
type History = (call: HistoryCall) => Promise<EventsPage | Refusal>;

async function historyAnswer(
  request: Request,
  query: { since?: string | undefined; limit?: number | undefined; wait?: number | undefined },
  history: History,
): Promise<{ status: 200; body: EventsPage } | Refusal | Response> {
  const limit = query.limit ?? LIMITS.eventsPage;
  if (request.headers.get("accept")?.includes("text/event-stream") === true) {
    const since = request.headers.get("last-event-id") ?? query.since ?? null;
    const first = await history({ since, limit, waitMs: 0 });
    return isRefusal(first) ? first : serverSentEvents(first, limit, request.signal, history);
  }
  const page = await history({ since: query.since ?? null, limit, waitMs: Math.round((query.wait ?? 0) * 1000) });
  return isRefusal(page) ? page : { status: 200, body: page };
}

/**
 * Server-sent events over the history: `id` is the cursor, so that `Last-Event-ID` resumes; `event: live` marks that the reader has
 * caught up, `event: reset` that its cursor has become too old; a comment every hold keeps proxies awake.
 */
function serverSentEvents(first: EventsPage, limit: number, signal: AbortSignal, history: History): Response {
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const writer = writable.getWriter();
  const text = new TextEncoder();
  const send = (lines: string): Promise<void> => writer.write(text.encode(`${lines}\n\n`));
  const pump = async (): Promise<void> => {
    let page: EventsPage | Refusal = first;
    let live = false;
    await send("retry: 1000");
    while (!signal.aborted) {
      if (isRefusal(page)) {
        await send(`event: reset\ndata: ${JSON.stringify({ code: page.refused, detail: page.detail })}`);
        return;
      }
      for (const event of page.events)
        await send(
          `id: ${page.cursor.split(":")[0]}:${Number(event.sequence)}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}`,
        );
      if (!page.more && !live) {
        live = true;
        await send(`id: ${page.cursor}\nevent: live\ndata: {"cursor":"${page.cursor}"}`);
      } else if (page.events.length === 0) await send(": still here");
      page = await history({ since: page.cursor, limit, waitMs: page.more ? 0 : LIMITS.historyHoldMs });
    }
  };
  // A reader that left makes `write` fail; that is the normal end of a stream.
  const end = (): Promise<void> => writer.close().catch(() => undefined);
  pump().then(end, end);
  return new Response(readable, {
    headers: { "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store" },
  });
}

/**
 * A watcher is admitted by a bearer with `read`, or by a ticket in the subprotocol list; a browser's ticket is bound to its origin. The
 * namespace remembers where, so that a revocation closes the socket.
 */
async function admitWatcher(
  endpoint: Endpoint,
  env: Env,
  ns: string,
  deployment: DeploymentId | null,
  bearer: string | null,
  request: Request,
): Promise<Admission | Refusal> {
  if (request.headers.get("upgrade")?.toLowerCase() !== "websocket")
    return refuse("upgrade-required", "This is a WebSocket.", { headers: { upgrade: "websocket" } });
  const offered = offeredSubprotocols(request);
  if (!offered.includes(STREAM_SUBPROTOCOL))
    return refuse("upgrade-required", `The subprotocol must be ${STREAM_SUBPROTOCOL}.`, {
      headers: { upgrade: "websocket", "sec-websocket-protocol": STREAM_SUBPROTOCOL },
    });
  const ticket = offered.find((one) => one.startsWith("ticket."))?.slice("ticket.".length);
  const origin = request.headers.get("origin");
  // A browser cannot set headers on a socket; one that has an Origin and no ticket is a page that tries its luck.
  if (origin !== null && ticket === undefined)
    return refuse("unauthenticated", "A browser's socket needs a ticket.", {
      next: "POST …/tickets and connect with the subprotocols `plumule.v1`, `ticket.<ticket>`.",
    });
  const admitted = await admit(env, ns, deployment, ticket === undefined ? bearer : { ticket, origin });
  if (isRefusal(admitted)) return (await countStranger(env, request)) ?? admitted;
  const { principal, until } = admitted;
  return (
    authorize(principal, "read") ??
    confine(principal, deployment) ??
    (await askPanel(env, principal, endpoint, deployment === null ? null : { deployment })) ?? {
      actor: principal.actor,
      until,
    }
  );
}

/** The subprotocols that a socket offers to speak, and what it shows among them. */
export function offeredSubprotocols(request: Request): string[] {
  return (request.headers.get("sec-websocket-protocol") ?? "").split(",").map((one) => one.trim());
}

/** An object's answer to an upgrade. The headers of a refusal are immutable until it is made anew, and the edge adds its own. */
export function upgraded(answer: Response): Response {
  return answer.status === 101 ? answer : new Response(answer.body, answer);
}
