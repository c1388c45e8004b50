import type { DeploymentCalls } from "../deployment/calls.ts";
import type { Env } from "../env.ts";
import type { NamespaceCalls } from "../namespace/calls.ts";
import type { PoolCalls } from "../pool/calls.ts";

/** Name of the Namespace object that lists the namespaces of the installation; no namespace id can be equal to it. */
export const DIRECTORY = "@directory";

/**
 * An object as its callers see it. The calls are stated rather than derived: the platform's RPC types turn what they cannot prove to be
 * serialisable, such as a configuration of any JSON, into `never`.
 */
export type Stub<Calls> = DurableObjectStub & Calls;

/** The object of a deployment. The only place, with its two siblings, that names an object. */
export function deploymentObject(env: Env, namespace: string, deployment: string): Stub<DeploymentCalls> {
  return env.DEPLOYMENT.getByName(`${namespace}/${deployment}`) as DurableObjectStub as Stub<DeploymentCalls>;
}

/** The object of a pool. */
export function poolObject(env: Env, namespace: string, pool: string): Stub<PoolCalls> {
  return env.POOL.getByName(`${namespace}/${pool}`) as DurableObjectStub as Stub<PoolCalls>;
}

/** The object of a namespace. */
export function namespaceObject(env: Env, namespace: string): Stub<NamespaceCalls> {
  return env.NAMESPACE.getByName(namespace) as DurableObjectStub as Stub<NamespaceCalls>;
}
