import { runInDurableObject } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import {
  type Assignment,
  didKeyOf,
  PROTOCOL_VERSION,
  type Problem,
  problemSchema,
  type Scope,
  SCOPES,
  sha256Hex,
  type Signer,
  signerFromSeed,
  signRegistration,
  signSession,
  utf8,
} from "@plumule/protocol";
import { expect, vi } from "vitest";
import type { Env } from "../../durable-objects/env.ts";
import { DIRECTORY } from "../../durable-objects/shared/names.ts";

const BROKER = "https://broker.test";
const bindings: Env = env;
export const ADMIN = bindings.ADMIN_TOKEN ?? "";

/** What a request brings. A plain object or array as body is sent as JSON, everything else as it is. */
export type Ask = { token?: string | null; body?: unknown; headers?: Record<string, string> };

/** Sends a request through the edge Worker, as a client would. */
export function ask(method: string, path: string, { token, body, headers = {} }: Ask = {}): Promise<Response> {
  const isRaw =
    body === undefined || typeof body === "string" || body instanceof Uint8Array || body instanceof ReadableStream;
  const { default: worker } = exports as unknown as { default: Fetcher };
  return worker.fetch(
    new Request(`${BROKER}${path}`, {
      method,
      // Each request from an address of its own, unless a test says otherwise: strangers are counted by address.
      headers: {
        "cf-connecting-ip": crypto.randomUUID(),
        ...(token == null ? {} : { authorization: `Bearer ${token}` }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: isRaw ? body : JSON.stringify(body) }),
    }),
  );
}

/** The JSON of an answer that must have the given status. */
export async function told<T>(response: Promise<Response>, status: number): Promise<T> {
  const answer = await response;
  const text = await answer.text();
  expect(answer.status, text).toBe(status);
  return JSON.parse(text) as T;
}

/** The problem document of a refusal, checked for its form. */
export async function problemIn(response: Response): Promise<Problem> {
  expect(response.headers.get("content-type")).toBe("application/problem+json");
  const problem = problemSchema.parse(await response.json());
  expect(problem.status).toBe(response.status);
  expect(problem.instance).toBe(response.headers.get("plumule-request-id"));
  expect(problem.next).toMatch(/\w{3}/);
  return problem;
}

/** A namespace with a token for each scope. */
export type Tenant = { ns: string; at: string; tokens: Record<Scope, string> };

export async function newTenant(): Promise<Tenant> {
  const ns = `edge-${crypto.randomUUID().slice(0, 8)}`;
  await told(ask("POST", "/v1/namespaces", { token: ADMIN, body: { id: ns } }), 201);
  const tokens = await Promise.all(
    SCOPES.map(async (scope) => {
      const body = { name: `the ${scope} token`, scopes: [scope] };
      const { token } = await told<{ token: string }>(ask("POST", `/v1/${ns}/tokens`, { token: ADMIN, body }), 201);
      return [scope, token] as const;
    }),
  );
  return { ns, at: `/v1/${ns}`, tokens: Object.fromEntries(tokens) as Record<Scope, string> };
}

/** A runner that went through registration and has a session. */
export type Runner = { id: string; signer: Signer; session: string };

export async function newRunner({ at, tokens }: Tenant): Promise<Runner> {
  const signer = await signerFromSeed(crypto.getRandomValues(new Uint8Array(32)));
  const id = didKeyOf(signer.publicKey);
  const audience = `${BROKER}${at}`;
  const { token } = await told<{ token: string }>(
    ask("POST", `${at}/runner-registrations`, { token: tokens.operate }),
    201,
  );
  const issuedAt = new Date().toISOString();
  const registration = await signRegistration(
    { audience, tokenSha256: await sha256Hex(utf8(token)), issuedAt },
    signer,
  );
  await told(ask("POST", `${at}/runners`, { body: { token, name: "king", proof: registration } }), 201);
  const { challenge } = await told<{ challenge: string }>(
    ask("POST", `${at}/runners/session`, { body: { runner: id } }),
    200,
  );
  const proof = await signSession({ audience, challenge }, signer);
  const session = await told<{ token: string }>(
    ask("POST", `${at}/runners/session`, { body: { runner: id, proof } }),
    201,
  );
  return { id, signer, session: session.token };
}

/** What a runner of one slot on Linux sends to ask for work. */
export function pollBody(waitMs = 5_000): Record<string, unknown> {
  const plain = { name: "king", systems: ["x86_64-linux"], features: [], labels: [], version: "1", capacity: 4 };
  const offer = { ...plain, isolation: "process-group" };
  return { requestKey: crypto.randomUUID(), protocol: PROTOCOL_VERSION, pool: "default", offer, busy: 0, waitMs };
}

/** Takes the next job of the tenant and acknowledges it. */
export async function takeJob({ at }: Tenant, { session }: Runner): Promise<Assignment> {
  const assignment = await told<Assignment>(ask("POST", `${at}/poll`, { token: session, body: pollBody() }), 200);
  const { leaseToken, epoch } = assignment;
  await told(ask("POST", `${runPath(at, assignment)}/heartbeat`, { token: leaseToken, body: { epoch } }), 200);
  return assignment;
}

/** Where the writes of a run go. */
export function runPath(at: string, { deployment, run }: Assignment): string {
  return `${at}/deployments/${deployment}/runs/${run}`;
}

/** Every row of a tenant's objects, and of those that its bad requests name. */
export async function storedBy({ ns }: Tenant): Promise<unknown> {
  const { NAMESPACE, DEPLOYMENT, POOL } = bindings;
  const objects: DurableObjectStub[] = [
    ...[DIRECTORY, ns, "nobody-here"].map((name) => NAMESPACE.getByName(name)),
    ...["web", "made-up"].map((name) => DEPLOYMENT.getByName(`${ns}/${name}`)),
    POOL.getByName(`${ns}/default`),
  ];
  return Promise.all(objects.map((stub) => runInDurableObject(stub, (_, { storage }) => rowsOf(storage.sql))));
}

/** Waits until what a tenant's objects tell each other has arrived. */
export async function settled(tenant: Tenant): Promise<void> {
  let before: unknown = null;
  await vi.waitFor(
    async () => {
      const last = before;
      before = await storedBy(tenant);
      expect(before).toEqual(last);
    },
    { timeout: 10_000, interval: 300 },
  );
}

function rowsOf(sql: SqlStorage): Record<string, unknown[]> {
  const tables = sql
    .exec<{ name: string }>(
      "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_cf\\_%' ESCAPE '\\'",
    )
    .toArray();
  return Object.fromEntries(tables.map(({ name }) => [name, sql.exec(`SELECT * FROM "${name}"`).toArray()]));
}
