import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import {
  type DeploymentView,
  didKeyOf,
  type Event,
  formatSequence,
  formatTime,
  isRefusal,
  type JobView,
  makeJobId,
  type Refusal,
  type Signer,
  signerFromSeed,
  type WebhookHeaders,
} from "@plumule/protocol";
import type { Env } from "../../durable-objects/env.ts";
import { namespaceObject } from "../../durable-objects/shared/names.ts";
import type { NamespaceCalls, PublishCall, RawHook } from "../../durable-objects/namespace/calls.ts";

/** The bindings of the Worker under test. */
export const bindings: Env = env;
export const BROKER = "https://broker.test";

/** A namespace object by its contract. */
export function namespaceCalls(name: string): NamespaceCalls {
  return namespaceObject(bindings, name);
}

let counter = 0;
/** A name that no other test has. */
export function freshName(): string {
  counter += 1;
  return `ns-${counter}-${crypto.randomUUID().slice(0, 8)}`;
}

/** A namespace that was just opened. */
export async function openNamespace(): Promise<{ name: string; calls: NamespaceCalls; audience: string }> {
  const name = freshName();
  const calls = namespaceCalls(name);
  await calls.open({ id: name });
  return { name, calls, audience: `${BROKER}/v1/${name}` };
}

/** A new Ed25519 key. */
export async function newSigner(): Promise<Signer & { did: string }> {
  const signer = await signerFromSeed(crypto.getRandomValues(new Uint8Array(32)));
  return { ...signer, did: didKeyOf(signer.publicKey) };
}

/** The answer, or a failed test when it is a refusal. */
export function granted<T>(answer: T | Refusal): T {
  if (isRefusal(answer))
    throw new Error(`refused (${answer.refused}): ${answer.detail} ${JSON.stringify(answer.errors ?? [])}`);
  return answer;
}

/** Every row of every table of an object, so that a test can say that nothing has changed. */
export function dumpTables(name: string): Promise<Record<string, unknown[]>> {
  return runInDurableObject(bindings.NAMESPACE.getByName(name), (_, { storage: { sql } }) => {
    const tables = sql
      .exec<{ name: string }>(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_cf\\_%' ESCAPE '\\' ORDER BY name",
      )
      .toArray();
    return Object.fromEntries(tables.map((table) => [table.name, sql.exec(`SELECT * FROM "${table.name}"`).toArray()]));
  });
}

/** Runs SQL in an object. */
export function execute(name: string, query: string, ...values: unknown[]): Promise<unknown[]> {
  return runInDurableObject(bindings.NAMESPACE.getByName(name), (_, { storage }) =>
    storage.sql.exec(query, ...values).toArray(),
  );
}

/** A webhook as the edge hands it over. */
export function hookOf(
  body: unknown,
  headers: WebhookHeaders | Record<string, string>,
  audience: string,
  hook: string | null = null,
): RawHook {
  const bytes = body instanceof Uint8Array ? body : bytesOf(body);
  return { hook, headers: { ...headers }, body: bytes, audience };
}

/** The bytes of a JSON document. */
export function bytesOf(body: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(body));
}

/** The hex HMAC-SHA256 of GitHub and Garden. */
export async function hubSignature(secret: string, body: Uint8Array): Promise<string> {
  const key = await crypto.subtle.importKey(
    "raw",
    new TextEncoder().encode(secret),
    { name: "HMAC", hash: "SHA-256" },
    false,
    ["sign"],
  );
  const mac = new Uint8Array(await crypto.subtle.sign("HMAC", key, body));
  return `sha256=${Array.from(mac, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** A deployment as its object publishes it. */
export function deploymentOf(namespace: string, id: string, changes: Partial<DeploymentView> = {}): DeploymentView {
  const at = formatTime(Date.now());
  return {
    id,
    namespace,
    state: "idle",
    revision: 1,
    activeJob: null,
    currentJob: null,
    pendingCount: 0,
    lastResult: null,
    createdAt: at,
    updatedAt: at,
    ...changes,
  };
}

/** A job as its deployment publishes it. */
export function jobOf(namespace: string, deployment: string, changes: Partial<JobView> = {}): JobView {
  return {
    id: makeJobId(Date.now(), crypto.getRandomValues(new Uint8Array(8))),
    namespace,
    deployment,
    state: "queued",
    phase: null,
    kind: "shell",
    type: null,
    mode: "queue",
    interrupt: "before-apply",
    priority: "normal",
    teardown: false,
    summary: null,
    labels: {},
    source: null,
    actor: "token:abc",
    createdAt: formatTime(Date.now()),
    startedAt: null,
    finishedAt: null,
    attempt: 0,
    run: null,
    runner: null,
    reason: null,
    supersededBy: null,
    rerunOf: null,
    waiting: null,
    progress: null,
    ...changes,
  };
}

/** An event of a deployment. */
export function eventOf(namespace: string, deployment: DeploymentView, job: JobView, sequence: number): Event {
  return {
    specversion: "1.0",
    id: crypto.randomUUID(),
    source: `/${namespace}/deployments/${deployment.id}`,
    type: `job.${job.state}`,
    subject: `jobs/${job.id}`,
    time: "2026-01-02T03:04:05.006Z",
    sequence: formatSequence(sequence),
    actor: job.actor,
    datacontenttype: "application/json",
    data: { deployment, job },
  };
}

/** What a deployment says after these jobs changed, one event each. */
export function batchOf(deployment: DeploymentView, jobs: JobView[], after: number): PublishCall {
  const events = jobs.map((job, at) => eventOf(deployment.namespace, deployment, job, after + at + 1));
  return { deployment, removed: false, jobs, events, after, through: after + events.length };
}

/** The first 500 events of a namespace's feed. */
export async function readFeed(calls: NamespaceCalls): Promise<Event[]> {
  return granted(await calls.history({ since: null, limit: 500, waitMs: 0 })).events;
}
