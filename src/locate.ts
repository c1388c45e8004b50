import { type DeploymentId, jobOfRun, type JobId, refuse, type Refusal, type RunId } from "@plumule/protocol";
import type { Env } from "../durable-objects/env.ts";
import { deploymentObject, namespaceObject } from "../durable-objects/shared/names.ts";

/** Where jobs live, per isolate. A job never moves, so an entry is true for ever. */
const places = new Map<string, DeploymentId>();
const PLACES_MAX = 20_000;

/** Remembers where a job lives; called by the submit, so that its own follow-up needs no look-up. */
export function rememberPlace(namespace: string, job: JobId, deployment: DeploymentId): void {
  if (places.size >= PLACES_MAX) places.clear();
  places.set(`${namespace} ${job}`, deployment);
}

/** The Deployment object of a job. */
export async function deploymentOfJob(
  env: Env,
  namespace: string,
  job: JobId,
): Promise<ReturnType<typeof deploymentObject> | Refusal> {
  const known = places.get(`${namespace} ${job}`);
  if (known !== undefined) return deploymentObject(env, namespace, known);
  const found = await namespaceObject(env, namespace).locate(job);
  if (found === null) return refuse("not-found", `There is no job ${job}.`);
  rememberPlace(namespace, job, found);
  return deploymentObject(env, namespace, found);
}

/** The Deployment object of a run: the run's id names its job. */
export function deploymentOfRun(env: Env, namespace: string, run: RunId): ReturnType<typeof deploymentOfJob> {
  return deploymentOfJob(env, namespace, jobOfRun(run));
}
