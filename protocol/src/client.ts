import * as z from "zod";
import type { AnswerOf, Endpoint } from "./endpoints/endpoint.ts";
import { problemSchema, type Problem } from "./errors.ts";
import { ACCEPTED_MEDIUM } from "./version.ts";

/** What a client needs of the world: a fetch, where the broker is, and the bearer of each request. */
export type ClientDeps = {
  fetch: (url: string, init: RequestInit) => Promise<Response>;
  baseUrl: string;
  bearer?: string | undefined;
};

/** What a call sends beside its path parameters. */
export type CallInput<E extends Endpoint> = {
  params: z.input<E["params"]>;
  query?: E["query"] extends z.ZodObject ? z.input<E["query"]> : never;
  body?: E["body"] extends z.ZodType ? z.input<E["body"]> : Uint8Array;
  headers?: Readonly<Record<string, string>>;
  signal?: AbortSignal;
};

/** An answer as a value: a 2xx by its schema, or a problem. `problem.code` is `internal` when the answer was not the broker's. */
export type CallAnswer<E extends Endpoint> =
  | { ok: true; answer: AnswerOf<E>; headers: Headers; response: Response }
  | { ok: false; status: number; problem: Problem; headers: Headers };

/** The path of an endpoint with its parameters in place. */
export function pathOf(
  endpoint: Endpoint,
  params: Readonly<Record<string, string>>,
  query?: Readonly<Record<string, string | number | undefined>>,
): string {
  const path = endpoint.path.replace(/:([a-z]+)/g, (_, name: string) => encodeURIComponent(params[name] ?? ""));
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query ?? {})) if (value !== undefined) search.set(key, String(value));
  return search.size === 0 ? path : `${path}?${search}`;
}

/**
 * Calls an endpoint. Throws only what `fetch` throws (the network); every answer is a value, so that a caller decides what to retry.
 * An answer that is not the broker's (a proxy's page with status 200 or 404, a body that was cut off) is a problem of status 502 or above.
 */
export async function call<E extends Endpoint>(
  deps: ClientDeps,
  endpoint: E,
  input: CallInput<E>,
): Promise<CallAnswer<E>> {
  const headers: Record<string, string> = { accept: ACCEPTED_MEDIUM, ...input.headers };
  if (deps.bearer !== undefined) headers["authorization"] ??= `Bearer ${deps.bearer}`;
  const init: RequestInit = { method: endpoint.method.toUpperCase(), headers };
  if (input.signal !== undefined) init.signal = input.signal;
  if (input.body instanceof Uint8Array) {
    headers["content-type"] ??= "application/octet-stream";
    init.body = input.body as Uint8Array<ArrayBuffer>;
  } else if (input.body !== undefined || endpoint.body !== null) {
    headers["content-type"] = "application/json";
    init.body = JSON.stringify(input.body ?? {});
  }
  const response = await deps.fetch(
    deps.baseUrl +
      pathOf(endpoint, input.params as Record<string, string>, input.query as Record<string, string> | undefined),
    init,
  );
  if (!(response.status in endpoint.answers)) {
    const problem = await readProblem(response);
    return problem === null
      ? strangeAnswer(response, "the body is not a problem document")
      : { ok: false, status: response.status, problem, headers: response.headers };
  }
  const schema = endpoint.answers[response.status];
  // No door of the broker answers a page; bytes that are not checked would otherwise be a captive portal's.
  if (response.headers.get("content-type")?.startsWith("text/html") === true)
    return strangeAnswer(response, "the body is a page for a browser");
  if (schema === null || schema === undefined)
    return {
      ok: true,
      answer: { status: response.status, body: null } as AnswerOf<E>,
      headers: response.headers,
      response,
    };
  const parsed = schema.safeParse(await response.json().catch(() => undefined));
  if (!parsed.success) return strangeAnswer(response, z.prettifyError(parsed.error));
  return {
    ok: true,
    answer: { status: response.status, body: parsed.data } as AnswerOf<E>,
    headers: response.headers,
    response,
  };
}

async function readProblem(response: Response): Promise<Problem | null> {
  return problemSchema.safeParse(await response.json().catch(() => undefined)).data ?? null;
}

/** What is not the broker's says nothing about what was asked: whatever status it came with, it is a fault that may pass. */
function strangeAnswer(response: Response, detail: string): Extract<CallAnswer<Endpoint>, { ok: false }> {
  const status = response.status >= 500 ? response.status : 502;
  return {
    ok: false,
    status,
    problem: {
      type: "about:blank",
      title: "Not an answer of a plumule broker",
      status,
      code: "internal",
      detail: `status ${response.status}: ${detail}`,
      next: "Check the broker's URL and any proxy in front of it.",
    },
    headers: response.headers,
  };
}
