import type { Env } from "../env.ts";

/** Name of the Namespace object that lists the namespaces of the installation; no namespace id can be equal to it. */
export const DIRECTORY = "@directory";

/** The object of a deployment. The only place, with its two siblings, that names an object. */
export function deploymentObject(env: Env, namespace: string, deployment: string): ReturnType<Env["DEPLOYMENT"]["getByName"]> {
  return env.DEPLOYMENT.getByName(`${namespace}/${deployment}`);
}

/** The object of a pool. */
export function poolObject(env: Env, namespace: string, pool: string): ReturnType<Env["POOL"]["getByName"]> {
  return env.POOL.getByName(`${namespace}/${pool}`);
}

/** The object of a namespace. */
export function namespaceObject(env: Env, namespace: string): ReturnType<Env["NAMESPACE"]["getByName"]> {
  return env.NAMESPACE.getByName(namespace);
}
