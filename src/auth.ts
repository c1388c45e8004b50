import {
  type Access,
  allowsScope,
  coversDeployment,
  type DeploymentId,
  type Endpoint,
  isRefusal,
  type JobId,
  LIMITS,
  type Principal,
  refuse,
  type Refusal,
} from "@plumule/protocol";
import type { Env } from "../durable-objects/env.ts";
import { namespaceObject } from "../durable-objects/shared/names.ts";

/**
 * Credentials that were looked up a moment ago, per isolate: a busy caller costs one look-up in five seconds, and a revocation takes
 * effect within the same five. Only successes are kept, so that guessing fills nothing.
 */
const known = new Map<string, { principal: Principal; until: number }>();
const KNOWN_MAX = 5_000;

/** The bearer of a request, or null. */
export function bearerOf(request: Request): string | null {
  const match = /^Bearer ([\x21-\x7e]{1,512})$/.exec(request.headers.get("authorization") ?? "");
  return match?.[1] ?? null;
}

/** Finds out who calls a namespace. The credential is looked up in that namespace's own object, so a token of another one is unknown there. */
export async function authenticate(
  env: Env,
  namespace: string,
  credential: string | null,
): Promise<Principal | Refusal> {
  if (credential === null) return refuse("unauthenticated", "This needs `Authorization: Bearer …`.");
  if (namespace === "" && !(await isAdmin(env, credential)))
    return refuse("unauthenticated", "This needs the installation's admin token.", {
      next: "Send `Authorization: Bearer …` with the broker's ADMIN_TOKEN.",
    });
  const key = `${namespace} ${credential}`;
  const cached = known.get(key);
  if (cached !== undefined && cached.until > Date.now()) return cached.principal;
  const answer = (await isAdmin(env, credential))
    ? await admin(env, namespace)
    : await namespaceObject(env, namespace).authenticate({ credential });
  if (isRefusal(answer)) return answer;
  if (known.size >= KNOWN_MAX) known.clear();
  known.set(key, { principal: answer.principal, until: Math.min(answer.until, Date.now() + LIMITS.credentialCacheMs) });
  return answer.principal;
}

/** Forgets who calls a namespace, when a right has ended: here it ends at once, in other isolates within the time above. */
export function forgetCallers(namespace: string): void {
  for (const key of known.keys()) if (key.startsWith(`${namespace} `)) known.delete(key);
}

/** Whether a caller may use an endpoint. Says which scope is missing, since the caller is known. */
export function authorize(principal: Principal, access: Access): Refusal | null {
  if (access === "installation")
    return principal.kind === "admin" ? null : refuse("forbidden", "This needs the installation's admin token.");
  if (access === "runner")
    return principal.kind === "runner"
      ? null
      : refuse("forbidden", "This needs a runner's session.", { next: "Start a runner: `plumule runner start`." });
  if (access === "read" || access === "submit" || access === "operate" || access === "admin")
    return allowsScope(principal.scopes, access) ? null : refuse("forbidden", `This needs the scope \`${access}\`.`);
  return null;
}

/**
 * Keeps a caller that is confined to some deployments to them. `deployment` is the one that a request is about; null when it is about the whole
 * namespace. What is refused does not depend on whether the deployment exists.
 */
export function confine({ deployments }: Principal, deployment: DeploymentId | null): Refusal | null {
  if (deployments === undefined || (deployment !== null && coversDeployment(deployments, deployment))) return null;
  const what = deployment === null ? "this is about the whole namespace" : `not ${deployment}`;
  return refuse("forbidden", `This credential is for ${deployments.join(", ")}; ${what}.`, {
    next: "Use a credential that is not confined to some deployments.",
  });
}

/** Asks the panel about one thing that somebody whom it named wants to do, where it wants to be asked. */
export async function askPanel(
  env: Env,
  principal: Principal,
  { name }: Endpoint,
  about: { deployment: DeploymentId } | { job: JobId } | null,
): Promise<Refusal | null> {
  if (principal.kind !== "token" || principal.ask !== true) return null;
  const { actor, namespace } = principal;
  if (await namespaceObject(env, namespace).mayAct({ actor, action: name, about })) return null;
  return refuse("forbidden", `The panel of ${namespace} does not allow \`${name}\` to ${actor}.`);
}

/** Admits a watcher by a bearer or a ticket. Never from the cache: the namespace has to know whose sockets to close. */
export async function admit(
  env: Env,
  namespace: string,
  deployment: DeploymentId | null,
  show: string | null | { ticket: string; origin: string | null },
): Promise<{ principal: Principal; until: number } | Refusal> {
  if (show === null) return refuse("unauthenticated", "This needs `Authorization: Bearer …`.");
  if (typeof show !== "string") return namespaceObject(env, namespace).admit({ show, deployment });
  if (!(await isAdmin(env, show)))
    return namespaceObject(env, namespace).admit({ show: { credential: show }, deployment });
  const answer = await admin(env, namespace);
  return isRefusal(answer) ? answer : { ...answer, until: Date.now() + LIMITS.admissionMs };
}

async function isAdmin(env: Env, credential: string): Promise<boolean> {
  return env.ADMIN_TOKEN !== undefined && (await sameSecret(credential, env.ADMIN_TOKEN));
}

/** The admin token opens every namespace that exists; `namespace` is empty for calls about the installation. */
async function admin(env: Env, namespace: string): Promise<{ principal: Principal; until: number } | Refusal> {
  if (namespace !== "" && !(await namespaceObject(env, namespace).isOpen()))
    return refuse("not-found", `There is no namespace ${namespace}.`, { next: "Create it: POST /v1/namespaces." });
  return {
    principal: { kind: "admin", actor: "admin", namespace: null, scopes: ["admin"] },
    until: Date.now() + LIMITS.credentialCacheMs,
  };
}

/** Compares two secrets through their digests: equal lengths, and no early exit that tells how much was right. */
async function sameSecret(a: string, b: string): Promise<boolean> {
  const digest = (text: string): Promise<ArrayBuffer> =>
    crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  const [left, right] = await Promise.all([digest(a), digest(b)]);
  return crypto.subtle.timingSafeEqual(left, right);
}
