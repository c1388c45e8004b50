import type { Context, Hono } from "hono";
import {
  type AnswerOf,
  createTicket,
  type Endpoint,
  endLogin,
  fieldErrors,
  type InputOf,
  isRefusal,
  jobOfRun,
  parseJson,
  type Principal,
  refuse,
  type Refusal,
} from "@plumule/protocol";
import type { Env } from "../durable-objects/env.ts";
import { askPanel, authenticate, authorize, bearerOf, confine } from "./auth.ts";
import { readBody } from "./body.ts";
import { problemResponse } from "./problem.ts";
import { countCaller, countSigned, countStranger } from "./rate.ts";

/** The Hono application of the broker; `instance` identifies the request. */
export type App = Hono<{ Bindings: Env; Variables: { instance: string } }>;
export type AppContext = Context<{ Bindings: Env; Variables: { instance: string } }>;

/** What a handler gets beside its parsed input. `bytes` is the raw body of endpoints whose medium is `octets`. */
export type Call<E extends Endpoint> = InputOf<E> & {
  principal: Principal;
  bearer: string | null;
  bytes: Uint8Array;
  /** Names this request, in its answer, in the Worker's log and in the audit log. */
  requestId: string;
  env: Env;
  request: Request;
  c: AppContext;
};

/** A handler's answer: a declared status with its body, a refusal, or a whole Response for logs and streams. */
export type Answer<E extends Endpoint> = Declared<AnswerOf<E>> | Refusal | Response;
type Declared<A extends { status: unknown; body: unknown }> = {
  [S in A["status"] & number]: {
    status: S;
    body: Extract<A, { status: S }>["body"];
    headers?: Readonly<Record<string, string>>;
  };
}[A["status"] & number];

const NOBODY: Principal = { kind: "token", actor: "nobody", namespace: "", scopes: [] };

/**
 * Binds an endpoint of the protocol to a handler. Authentication comes before the body is read, so that a stranger costs nothing;
 * an undeclared status or a wrong body does not compile.
 */
export function implement<E extends Endpoint, const A extends Answer<E>>(
  app: App,
  endpoint: E,
  handle: (call: Call<E>) => Promise<A>,
): void {
  app.on(endpoint.method.toUpperCase(), endpoint.path, async (c) => {
    const instance = c.get("instance");
    const params = endpoint.params.safeParse(c.req.param());
    if (!params.success) return problemResponse(badParameter(fieldErrors(params.error)), instance);
    const bearer = bearerOf(c.req.raw);
    const principal = await principalOf(endpoint, c.env, params.data, bearer, c.req.raw);
    if (isRefusal(principal)) return problemResponse(principal, instance);
    const query = endpoint.query === null ? null : endpoint.query.safeParse(c.req.query());
    if (query !== null && !query.success) return problemResponse(badParameter(fieldErrors(query.error)), instance);
    const bytes =
      endpoint.body === null && endpoint.bodyMedium !== "octets"
        ? new Uint8Array(0)
        : await readBody(c.req.raw, endpoint.bodyLimitBytes, endpoint.bodyEncoding);
    if (isRefusal(bytes)) return problemResponse(bytes, instance);
    const parsed = endpoint.body === null ? { body: null } : parseBody(endpoint.body, bytes);
    if (isRefusal(parsed)) return problemResponse(parsed, instance);
    const input = { params: params.data, query: query?.data ?? {}, ...parsed } as InputOf<E>;
    const answer = await handle({
      ...input,
      principal,
      bearer,
      bytes,
      requestId: instance,
      env: c.env,
      request: c.req.raw,
      c,
    });
    if (answer instanceof Response) return answer;
    if (isRefusal(answer)) return problemResponse(answer, instance);
    const {
      status,
      body: json,
      headers,
    } = answer as { status: number; body: unknown; headers?: Record<string, string> };
    return json === null || json === undefined
      ? new Response(null, { status, headers: headers ?? {} })
      : Response.json(json, { status, headers: headers ?? {} });
  });
}

async function principalOf(
  endpoint: Endpoint,
  env: Env,
  params: Record<string, unknown>,
  bearer: string | null,
  request: Request,
): Promise<Principal | Refusal> {
  const ns = typeof params["ns"] === "string" ? params["ns"] : "";
  if (endpoint.access === "signed") return (await countSigned(env, ns, request)) ?? NOBODY;
  // A socket may bring a ticket instead of a bearer, which its route redeems; leases are checked by the objects.
  if (endpoint.access === "none" || endpoint.access === "lease" || endpoint.answerMedium === "stream") return NOBODY;
  const principal = await authenticate(env, ns, bearer);
  if (isRefusal(principal)) return (await countStranger(env, request)) ?? principal;
  return (
    (await countCaller(env, endpoint, principal)) ??
    authorize(principal, endpoint.access) ??
    confineTo(principal, endpoint, params) ??
    (await askPanel(env, principal, endpoint, aboutOf(params))) ??
    principal
  );
}

/** A job or run belongs to a deployment that only its look-up tells (`locate.ts`); what concerns the caller itself belongs to none. */
function confineTo(principal: Principal, endpoint: Endpoint, params: Record<string, unknown>): Refusal | null {
  if ("job" in params || "run" in params || endpoint === createTicket || endpoint === endLogin) return null;
  return confine(principal, typeof params["deployment"] === "string" ? params["deployment"] : null);
}

/** What a request is about, by its path: a deployment, a job (a run names its job), or the namespace. */
function aboutOf({ deployment, job, run }: Record<string, unknown>): { deployment: string } | { job: string } | null {
  if (typeof deployment === "string") return { deployment };
  if (typeof job === "string") return { job };
  return typeof run === "string" ? { job: jobOfRun(run) } : null;
}

function parseBody(schema: NonNullable<Endpoint["body"]>, bytes: Uint8Array): { body: unknown } | Refusal {
  // An empty body stands for `{}`, so that `curl -X POST …/cancel` works.
  const json = bytes.byteLength === 0 ? { value: {} } : parseJson(bytes);
  if (isRefusal(json)) return json;
  const parsed = schema.safeParse(json.value);
  return parsed.success
    ? { body: parsed.data }
    : refuse("invalid-body", "The body does not fit the schema of this endpoint.", {
        errors: fieldErrors(parsed.error),
      });
}

function badParameter(errors: Refusal["errors"]): Refusal {
  return refuse(
    "invalid-parameter",
    "A parameter of the path or query is not valid.",
    errors === undefined ? {} : { errors },
  );
}
