import {
  coversDeployment,
  type DeploymentId,
  type JobId,
  jobOfRun,
  type Principal,
  refuse,
  type Refusal,
  type RunId,
} from "@plumule/protocol";
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

/** A Deployment object, wrapped: a stub has every name that it is asked for, so it could pass for a promise or a refusal. */
export type Place = { object: ReturnType<typeof deploymentObject> };

/** Where a job lives. For a caller that is confined to other deployments it does not exist. */
export async function placeOfJob(
  env: Env,
  namespace: string,
  job: JobId,
  { deployments }: Principal,
): Promise<Place | Refusal> {
  const deployment = places.get(`${namespace} ${job}`) ?? (await namespaceObject(env, namespace).locate(job));
  if (deployment !== null) rememberPlace(namespace, job, deployment);
  if (deployment === null || !coversDeployment(deployments, deployment))
    return refuse("not-found", `There is no job ${job}.`);
  return { object: deploymentObject(env, namespace, deployment) };
}

/** Where a run lives: its id names its job. */
export function placeOfRun(env: Env, namespace: string, run: RunId, principal: Principal): Promise<Place | Refusal> {
  return placeOfJob(env, namespace, jobOfRun(run), principal);
}
