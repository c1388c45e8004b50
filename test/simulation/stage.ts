import {
  call,
  type CallInput,
  type CallAnswer,
  type ClientDeps,
  createNamespace,
  createRegistration,
  createToken,
  type Endpoint,
  type Problem,
  putTriggers,
  putTrust,
} from "@plumule/protocol";
import { type Context, newOwner, runAs } from "./platform/clock.ts";
import type { Edge } from "./platform/edge.ts";
import type { Network } from "./platform/network.ts";
import type { ObjectHosts } from "./platform/hosts.ts";
import type { World } from "./platform/world.ts";

/** Where clients find the broker. */
export const BROKER_URL = "https://plumule.example";
/** The secret that begins every installation. */
export const ADMIN_TOKEN = "the-admin-token-of-the-simulation";

/** A tenant: its namespace, and a word that is in everything it submits and in nothing that another tenant may see. */
export type Tenant = {
  ns: string;
  marker: string;
  token: string;
  hookSecret: string;
  deployments: readonly [string, ...string[]];
  /** Runners whose votes count. */
  voterCount: number;
};

/** Everything that a world consists of. */
export type Stage = {
  world: World;
  hosts: ObjectHosts;
  network: Network;
  edge: Edge;
  tenants: readonly Tenant[];
  /** How many of the jobs name locks, from 0 to 1. */
  lockShare: number;
  /** How much slower than usual people are: some worlds last long, so that leases and sessions end in them. */
  pace: number;
};

/** A program that talks to the broker. */
export type Client = {
  context: Context;
  deps: ClientDeps;
  tenant: Tenant | null;
};

/** A client with a bearer. A stranger is one whose bearer is worth nothing. */
export function newClient(
  edge: Edge,
  name: string,
  of: { tenant: Tenant | null; bearer?: string; skewMs?: number; stranger?: boolean },
): Client {
  const context = { owner: newOwner(name, of.skewMs), stranger: of.stranger ?? false };
  return { context, deps: { fetch: edge.fetch, baseUrl: BROKER_URL, bearer: of.bearer }, tenant: of.tenant };
}

/** One request of a client, which gives up after a while. Null: it knows nothing of what became of it. */
export async function ask<E extends Endpoint>(
  client: Client,
  endpoint: E,
  input: CallInput<E>,
): Promise<CallAnswer<E> | null> {
  try {
    return await runAs(client.context, () =>
      call(client.deps, endpoint, { ...input, signal: AbortSignal.timeout(REQUEST_MS) }),
    );
  } catch {
    return null;
  }
}

const REQUEST_MS = 30_000;

/** Waits on the clock of the world, as a client. */
export function rest(client: Client, ms: number): Promise<void> {
  return runAs(client.context, () => new Promise((resolve) => setTimeout(resolve, ms)));
}

/** Opens a tenant: namespace, token, and a rule that turns pushes into jobs. */
export async function openTenant(
  edge: Edge,
  of: { ns: string; marker: string; deployments: Tenant["deployments"]; script: string; locks?: string[] },
): Promise<Tenant> {
  const admin = newClient(edge, "admin", { tenant: null, bearer: ADMIN_TOKEN });
  const { ns, marker, deployments } = of;
  needed(await ask(admin, createNamespace, { params: {}, body: { id: ns } }));
  const body = { name: "people", scopes: ["admin" as const] };
  const { token } = needed(await ask(admin, createToken, { params: { ns }, body })).answer.body;
  const hookSecret = `a secret of ${marker}, long enough`;
  const triggers = {
    triggers: [
      {
        name: "pushed",
        refs: ["refs/heads/*"],
        deployment: `${marker}-pushed-{branch}`,
        task: { kind: "shell" as const, script: of.script },
      },
    ],
    hooks: [{ id: "forge", secret: hookSecret }],
    ...(of.locks === undefined ? {} : { locks: { pushed: of.locks } }),
  };
  needed(await ask(admin, putTriggers, { params: { ns }, body: triggers, headers: { "if-match": '"v0"' } }));
  return { ns, marker, token, hookSecret, deployments, voterCount: 0 };
}

/** Lets the results of runners count as votes, each for itself. */
export async function trustRunners(edge: Edge, tenant: Tenant, runners: readonly string[]): Promise<void> {
  const admin = newClient(edge, "admin", { tenant: null, bearer: ADMIN_TOKEN });
  const signers = runners.map((key, index) => ({ key, operator: `operator-${index}` }));
  const rules = [{ ref: "*", require: { k: 1, compare: "result" as const }, onDivergence: "block" as const }];
  const body = { version: 2, signers, rules };
  needed(await ask(admin, putTrust, { params: { ns: tenant.ns }, body, headers: { "if-match": '"v1"' } }));
  tenant.voterCount = runners.length;
}

/** A token with which one runner registers. */
export async function registrationOf(edge: Edge, ns: string): Promise<string> {
  const admin = newClient(edge, "admin", { tenant: null, bearer: ADMIN_TOKEN });
  return needed(await ask(admin, createRegistration, { params: { ns }, body: {} })).answer.body.token;
}

/** What `ask` answers, of any endpoint. */
export type Answered =
  | { ok: true; answer: { status: number; body: unknown } }
  | { ok: false; status: number; problem: Problem };

/** The answer of a call that nothing stands in the way of. */
export function needed<A extends Answered>(answer: A | null): Extract<A, { ok: true }> {
  if (answer === null) throw new Error("the broker did not answer");
  if (!answer.ok) throw new Error(`${answer.problem.code}: ${answer.problem.detail}`);
  return answer as Extract<A, { ok: true }>;
}
