import {
  ACCEPTED_MEDIUM,
  createLogin,
  createNamespace,
  createRegistration,
  createSession,
  createTicket,
  createToken,
  drainRunner,
  endLogin,
  getAuthorizer,
  getAudit,
  getCapabilities,
  getHealth,
  getMembers,
  getQueue,
  getTriggers,
  getTrust,
  isRefusal,
  LIMITS,
  listDeliveries,
  listLocks,
  listNamespaces,
  listRunners,
  listSecrets,
  listTokens,
  PROTOCOL_VERSION,
  protocolOf,
  PROTOCOL_VERSION_FLOOR,
  putAuthorizer,
  putMembers,
  putRecipient,
  putSecret,
  putTriggers,
  putTrust,
  receiveHook,
  receiveNamedHook,
  redeliver,
  type Refusal,
  registerRunner,
  refuse,
  type TriggersView,
  type TrustPolicy,
  UNNAMED_PROTOCOL,
  removeSecret,
  revokeRunner,
  revokeToken,
  STREAM_SUBPROTOCOL,
  undrainRunner,
  testTriggers,
} from "@plumule/protocol";
import { DIRECTORY, namespaceObject, poolObject } from "../../durable-objects/shared/names.ts";
import { forgetCallers } from "../auth.ts";
import { acceptedProtocol } from "../guard.ts";
import { audienceOf } from "../audience.ts";
import { type Answer, type App, type Call, implement } from "../implement.ts";

const PAGE = 50;
const DOORS: string[] = ["http", "sse", `websocket ${STREAM_SUBPROTOCOL}`];

/** What is configured: namespaces, tokens, runners, trust, triggers, webhooks. All of it lives in the Namespace object. */
export function settingsRoutes(app: App): void {
  implement(app, getHealth, async () => ({ status: 200, body: { ok: true } }));
  implement(app, getCapabilities, async ({ env }) => ({
    status: 200,
    body: {
      name: "plumule",
      protocol: PROTOCOL_VERSION,
      protocolFloor: PROTOCOL_VERSION_FLOOR,
      limits: { ...LIMITS },
      doors: DOORS,
      brokerKey: await namespaceObject(env, DIRECTORY).brokerKey({ make: false }),
    },
  }));
  implement(app, createNamespace, async ({ body, env }) => {
    const answer = await namespaceObject(env, DIRECTORY).createNamespace({ id: body.id });
    return answer.created ? { status: 201, body: answer.namespace } : { status: 200, body: answer.namespace };
  });
  implement(app, listNamespaces, async ({ query, env }) =>
    ok(
      await namespaceObject(env, DIRECTORY).listNamespaces({
        cursor: query.cursor ?? null,
        limit: query.limit ?? PAGE,
      }),
    ),
  );
  implement(app, createToken, async ({ requestId, params, body, principal, env }) =>
    created(await namespaceObject(env, params.ns).createToken({ requestId, actor: principal.actor, body })),
  );
  implement(app, listTokens, async ({ params, env }) => {
    const items = await namespaceObject(env, params.ns).listTokens();
    return isRefusal(items) ? items : { status: 200, body: { items } };
  });
  implement(app, revokeToken, async ({ requestId, params, principal, env }) => {
    const answer = await namespaceObject(env, params.ns).revokeToken({
      requestId,
      actor: principal.actor,
      id: params.token,
    });
    forgetCallers(params.ns);
    return isRefusal(answer) ? answer : { status: 204, body: null };
  });
  implement(app, createTicket, async ({ params, principal, request, env }) =>
    created(
      await namespaceObject(env, params.ns).createTicket({
        actor: principal.actor,
        scopes: principal.scopes,
        deployments: principal.deployments,
        origin: request.headers.get("origin"),
      }),
    ),
  );
  implement(app, createLogin, async ({ requestId, params, body, request, env }) => {
    const audience = audienceOf(env, request, params.ns);
    const object = namespaceObject(env, params.ns);
    if (body.proof === undefined) return ok(await object.createLoginChallenge({ key: body.key, audience }));
    return created(await object.createLogin({ requestId, key: body.key, proof: body.proof, audience }));
  });
  implement(app, endLogin, async ({ requestId, params, bearer, env }) => {
    const answer = await namespaceObject(env, params.ns).endLogin({ requestId, credential: bearer ?? "" });
    forgetCallers(params.ns);
    return isRefusal(answer) ? answer : { status: 204, body: null };
  });
  versionedRoutes(app);
  runnerRoutes(app);
  secretRoutes(app);
  auditRoutes(app);
  hookRoutes(app);
}

function secretRoutes(app: App): void {
  implement(app, listSecrets, async ({ params, env }) => {
    const items = await namespaceObject(env, params.ns).listSecrets();
    return isRefusal(items) ? items : { status: 200, body: { items } };
  });
  implement(app, putSecret, async ({ requestId, params, body, principal, env }) =>
    ok(
      await namespaceObject(env, params.ns).putSecret({ requestId, actor: principal.actor, name: params.secret, body }),
    ),
  );
  implement(app, removeSecret, async ({ requestId, params, principal, env }) => {
    const call = { requestId, actor: principal.actor, name: params.secret };
    const answer = await namespaceObject(env, params.ns).removeSecret(call);
    return isRefusal(answer) ? answer : { status: 204, body: null };
  });
  implement(app, putRecipient, async ({ requestId, params, body, principal, env }) => {
    if (principal.kind !== "runner" || principal.runner !== params.runner)
      return refuse("forbidden", "A runner publishes its own recipient, no other's.");
    const call = { requestId, runner: params.runner, recipient: body.recipient };
    const answer = await namespaceObject(env, params.ns).putRecipient(call);
    return isRefusal(answer) ? answer : { status: 204, body: null };
  });
}

function auditRoutes(app: App): void {
  implement(app, getAudit, async ({ params, query, env }) =>
    ok(await namespaceObject(env, params.ns).listAudit({ cursor: query.cursor ?? null, limit: query.limit ?? PAGE })),
  );
}

function versionedRoutes(app: App): void {
  implement(app, getTrust, async ({ params, request, env }) =>
    versioned(request, readablePolicy(acceptedProtocol(request), await namespaceObject(env, params.ns).getTrust())),
  );
  implement(app, putTrust, async ({ requestId, params, body, principal, request, env }) =>
    tagged(
      await namespaceObject(env, params.ns).putTrust({
        requestId,
        actor: principal.actor,
        policy: body,
        ifMatch: request.headers.get("if-match"),
      }),
    ),
  );
  implement(app, getMembers, async ({ params, request, env }) =>
    versioned(request, await namespaceObject(env, params.ns).getMembers()),
  );
  implement(app, putMembers, async ({ requestId, params, body, principal, request, env }) => {
    const ifMatch = request.headers.get("if-match");
    const answer = await namespaceObject(env, params.ns).putMembers({
      requestId,
      actor: principal.actor,
      body,
      ifMatch,
    });
    forgetCallers(params.ns);
    return tagged(answer);
  });
  implement(app, getAuthorizer, async ({ params, request, env }) =>
    versioned(request, await namespaceObject(env, params.ns).getAuthorizer()),
  );
  implement(app, putAuthorizer, async ({ params, body, principal, request, env }) => {
    const ifMatch = request.headers.get("if-match");
    const answer = await namespaceObject(env, params.ns).putAuthorizer({ actor: principal.actor, body, ifMatch });
    forgetCallers(params.ns);
    return tagged(answer);
  });
  implement(app, getTriggers, async ({ params, request, env }) =>
    versioned(
      request,
      readableTriggers(acceptedProtocol(request), await namespaceObject(env, params.ns).getTriggers()),
    ),
  );
  implement(app, putTriggers, async ({ requestId, params, body, principal, request, env }) =>
    tagged(
      await namespaceObject(env, params.ns).putTriggers({
        requestId,
        actor: principal.actor,
        body,
        ifMatch: request.headers.get("if-match"),
      }),
    ),
  );
  implement(app, testTriggers, async ({ params, body, request, env }) =>
    ok(
      await namespaceObject(env, params.ns).testTriggers({
        event: body,
        audience: audienceOf(env, request, params.ns),
      }),
    ),
  );
}

function runnerRoutes(app: App): void {
  implement(app, getQueue, async ({ params, query, env }) => ({
    status: 200,
    body: await poolObject(env, params.ns, query.pool ?? "default").listQueue({ limit: query.limit ?? PAGE }),
  }));
  implement(app, listLocks, async ({ params, query, env }) =>
    ok(await namespaceObject(env, params.ns).listLocks({ cursor: query.cursor ?? null, limit: query.limit ?? PAGE })),
  );
  implement(app, listRunners, async ({ params, query, env }) =>
    ok(await namespaceObject(env, params.ns).listRunners({ cursor: query.cursor ?? null, limit: query.limit ?? PAGE })),
  );
  implement(app, drainRunner, async ({ requestId, params, body, principal, env }) =>
    ok(
      await namespaceObject(env, params.ns).drainRunner({
        requestId,
        actor: principal.actor,
        runner: params.runner,
        drained: true,
        how: body,
      }),
    ),
  );
  implement(app, undrainRunner, async ({ requestId, params, principal, env }) =>
    ok(
      await namespaceObject(env, params.ns).drainRunner({
        requestId,
        actor: principal.actor,
        runner: params.runner,
        drained: false,
      }),
    ),
  );
  implement(app, revokeRunner, async ({ requestId, params, principal, env }) => {
    const object = namespaceObject(env, params.ns);
    const answer = await object.revokeRunner({ requestId, actor: principal.actor, runner: params.runner });
    forgetCallers(params.ns);
    return ok(answer);
  });
  implement(app, createRegistration, async ({ requestId, params, body, principal, env }) =>
    created(
      await namespaceObject(env, params.ns).createRegistration({
        requestId,
        actor: principal.actor,
        pool: body.pool ?? "default",
      }),
    ),
  );
  implement(app, registerRunner, async ({ requestId, params, body, request, env }) =>
    created(
      await namespaceObject(env, params.ns).registerRunner({
        requestId,
        ...body,
        audience: audienceOf(env, request, params.ns),
      }),
    ),
  );
  implement(app, createSession, async ({ params, body, request, env }) => {
    const audience = audienceOf(env, request, params.ns);
    const object = namespaceObject(env, params.ns);
    if (body.proof === undefined) return ok(await object.createChallenge({ runner: body.runner, audience }));
    return created(await object.createSession({ runner: body.runner, proof: body.proof, audience }));
  });
}

function hookRoutes(app: App): void {
  implement(app, receiveHook, (call) => receive(call, null));
  implement(app, receiveNamedHook, (call) => receive(call, call.params.hook));
  implement(app, listDeliveries, async ({ params, query, env }) =>
    ok(
      await namespaceObject(env, params.ns).listDeliveries({
        cursor: query.cursor ?? null,
        limit: query.limit ?? PAGE,
      }),
    ),
  );
  implement(app, redeliver, async ({ params, principal, env }) => {
    const answer = await namespaceObject(env, params.ns).redeliver({ actor: principal.actor, id: params.delivery });
    return isRefusal(answer) ? answer : { status: 202, body: answer };
  });
}

async function receive(
  { params, bytes, request, env }: Pick<Call<typeof receiveHook>, "params" | "bytes" | "request" | "env">,
  hook: string | null,
): Promise<Answer<typeof receiveHook>> {
  const answer = await namespaceObject(env, params.ns).receiveHook({
    hook,
    headers: Object.fromEntries(request.headers),
    body: bytes,
    audience: audienceOf(env, request, params.ns),
  });
  if (isRefusal(answer)) return answer;
  return answer.status === 202 ? { status: 202, body: answer.delivery } : { status: 200, body: answer.delivery };
}

function ok<T>(answer: T | Refusal): { status: 200; body: T } | Refusal {
  return isRefusal(answer) ? answer : { status: 200, body: answer };
}

function created<T>(answer: T | Refusal): { status: 201; body: T } | Refusal {
  return isRefusal(answer) ? answer : { status: 201, body: answer };
}

function tagged<T extends { version: number }>(
  answer: T | Refusal,
): { status: 200; body: T; headers: Record<string, string> } | Refusal {
  return isRefusal(answer) ? answer : { status: 200, body: answer, headers: { etag: `"v${answer.version}"` } };
}

function versioned<T extends { version: number }>(
  request: Request,
  answer: T | Refusal,
):
  | { status: 200; body: T; headers: Record<string, string> }
  | { status: 304; body: null; headers: Record<string, string> }
  | Refusal {
  const current = tagged(answer);
  if (isRefusal(current)) return current;
  return request.headers.get("if-none-match") === current.headers["etag"]
    ? { status: 304, body: null, headers: current.headers }
    : current;
}

/** A policy with purposes is not given to whoever cannot read them: without them it would say that every key is there for results, and be put back so. */
function readablePolicy(version: number, policy: TrustPolicy | Refusal): TrustPolicy | Refusal {
  if (isRefusal(policy) || version > UNNAMED_PROTOCOL || policy.signers.every(({ purposes }) => purposes === undefined))
    return policy;
  return tooOld("The trust policy says what its keys are for, which version 1 cannot read.");
}

/** Likewise the rules: whoever reads them without what they say of a task would put back others. */
function readableTriggers(version: number, view: TriggersView | Refusal): TriggersView | Refusal {
  if (isRefusal(view) || view.triggers.every(({ task }) => protocolOf({ task }) <= version)) return view;
  return tooOld("A rule says more of its task than version 1 can read.");
}

function tooOld(detail: string): Refusal {
  return refuse("protocol-too-old", detail, {
    next: `Update plumule, or ask with the header Accept: ${ACCEPTED_MEDIUM}`,
  });
}
