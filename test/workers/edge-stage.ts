import { type Assignment, type Endpoint, ENDPOINTS, type ErrorCode, ERRORS } from "@plumule/protocol";
import { expect, it } from "vitest";
import { refusalsOf } from "../../src/openapi.ts";
import {
  type Ask,
  ask,
  newRunner,
  newTenant,
  problemIn,
  type Runner,
  runPath,
  settled,
  storedBy,
  takeJob,
  type Tenant,
  told,
} from "./edge-harness.ts";

type Sent = { method: string; path: string; ask: Ask };
/** A bad request and how it is answered: with a code, and where a field is wrong with its pointer. */
export type Bad = Sent & { name: string; code: ErrorCode; pointer?: string; detail?: string };

export const SHELL = { task: { kind: "shell", script: "true" } };
export const ABSENT_JOB = "0199a0b1-c2d3-7000-8abc-0123456789ab";
export const ABSENT_RUN = "0199a0b1-c2d3-7001-8abc-0123456789ab";

export let tenant: Tenant;
export let foreign: Tenant;
export let runner: Runner;
export let running: Assignment;
export let finalJob: string;

/** One tenant in the midst of its work: a job that has ended, one that runs with a log of five bytes, one that waits. And another tenant. */
export async function setStage(): Promise<void> {
  [tenant, foreign] = [await newTenant(), await newTenant()];
  runner = await newRunner(tenant);
  finalJob = await submit("k0");
  await told(ask("POST", `${tenant.at}/jobs/${finalJob}/cancel`, { token: tenant.tokens.submit }), 202);
  await submit("k1");
  running = await takeJob(tenant, runner);
  const { leaseToken, epoch } = running;
  const log = `${runPath(tenant.at, running)}/log?offset=0&epoch=${epoch}`;
  await told(ask("PUT", log, { token: leaseToken, body: "hello" }), 200);
  await submit("k2");
  await settled(tenant);
}

async function submit(key: string): Promise<string> {
  const { path, method, ask: asked } = submitting(SHELL, { "idempotency-key": key });
  return (await told<{ job: { id: string } }>(ask(method, path, asked), 202)).job.id;
}

const sending =
  (method: string) =>
  (path: string, asked: Ask = {}): Sent => ({ method, path, ask: asked });
export const get = sending("GET");
export const post = sending("POST");
export const put = sending("PUT");
export const remove = sending("DELETE");

/** A request with a token of the tenant. */
export function by(scope: keyof Tenant["tokens"], more: Ask = {}): Ask {
  return { token: tenant.tokens[scope], ...more };
}

/** A submit to the busy deployment. */
export function submitting(body: unknown, headers: Record<string, string> = {}): Sent {
  return post(`${tenant.at}/deployments/web/jobs`, by("submit", { body, headers }));
}

export function bad(name: string, sent: Sent, code: ErrorCode, more: Pick<Bad, "pointer" | "detail"> = {}): Bad {
  return { name, ...sent, code, ...more };
}

/** Tests that each request is refused as documented, and changes no stored row. */
export function refuses(title: string, cases: () => Bad[]): void {
  // The look-up of a job that is not there waits two seconds for it to be indexed.
  const timeout = 30_000;
  it(title, { timeout }, async () => {
    const before = await storedBy(tenant);
    for (const { name, method, path, code, ask: asked, pointer, detail } of cases()) {
      const response = await ask(method, path, asked);
      expect(response.status, `${name}: ${await response.clone().text()}`).toBe(ERRORS[code].status);
      const problem = await problemIn(response);
      expect(problem.code, name).toBe(code);
      const pointers = problem.errors?.map((one) => one.pointer);
      if (pointer !== undefined) expect(pointers, name).toContain(pointer);
      if (detail !== undefined) expect(problem.detail, name).toContain(detail);
      const endpoint = endpointAt(method, path);
      expect(refusalsOf(endpoint), `${name}: ${endpoint.name} does not document ${code}`).toContain(code);
      expect(await storedBy(tenant), `${name} changed what is stored`).toEqual(before);
    }
  });
}

function endpointAt(method: string, path: string): Endpoint {
  const { pathname } = new URL(path, "https://broker.test");
  const found = Object.values(ENDPOINTS).find(
    (one) =>
      one.method === method.toLowerCase() && new RegExp(`^${one.path.replaceAll(/:[a-z]+/g, "[^/]+")}$`).test(pathname),
  );
  if (found === undefined) throw new Error(`no endpoint at ${method} ${path}`);
  return found;
}
