import { createHash } from "node:crypto";
import {
  cancelJob,
  type Interrupt,
  isFinalJobState,
  type JobState,
  type Mode,
  type SubmitBody,
  submitJob,
} from "@plumule/protocol";
import { type Client, tryOnce } from "./client.ts";
import type { Answer, Cancel, Submit } from "./history.ts";
import { bodyOf, type JobPlan, planJob } from "./jobs.ts";
import { type Random, randomOf } from "./random.ts";

/** What people did to deployments, what they were told, and what each job that they wished for does. */
export type People = { plans: Map<string, JobPlan>; submits: Submit[]; cancels: Cancel[] };

/**
 * Where a round's jobs leave evidence, what is in the environment or the arguments of each of their processes, and whether nothing that they
 * leave behind can get away from their runner.
 */
export type Place = { evidence: string; mark: string; contained: boolean };

/** How long a client goes on asking for an answer after the faults have stopped, ms. */
const PATIENCE_MS = 30_000;

/** Nobody has done anything yet. */
export function createPeople(): People {
  return { plans: new Map(), submits: [], cancels: [] };
}

/** Submits one job, of which the answer is the id. */
export async function firstJob(
  client: Client,
  people: People,
  { deployment, job, place }: { deployment: string; job: JobPlan; place: Place },
): Promise<string> {
  people.plans.set(job.key, job);
  const how = {
    deployment,
    key: job.key,
    body: bodyOf(job, place, {}),
    over: AbortSignal.abort(),
    random: randomOf(job.key),
  };
  const submit = await insist(client, how);
  people.submits.push(submit);
  const [answer] = submit.answers;
  if (answer?.job == null) throw new Error(`${job.key} was not accepted: ${answer?.code}`);
  return answer.job;
}

/** Somebody for each deployment submits, asks again, and cancels, until `over`; resolves when they have all the answers that they wait for. */
export async function letPeopleAct(
  client: Client,
  people: People,
  { deployments, place, seed, over }: { deployments: readonly string[]; place: Place; seed: string; over: AbortSignal },
): Promise<void> {
  const acts = deployments.map((deployment) =>
    actOn(client, people, { deployment, place, random: randomOf(`${seed} people of ${deployment}`), over }),
  );
  await Promise.all(acts);
}

type Scene = { deployment: string; place: Place; random: Random; over: AbortSignal };

async function actOn(client: Client, people: People, scene: Scene): Promise<void> {
  const { deployment, place, random, over } = scene;
  for (let count = 1; !over.aborted; count += 1) {
    const planned = planJob(`${deployment}.${count}`, random);
    const plan = { ...planned, daemons: planned.daemons && place.contained };
    people.plans.set(plan.key, plan);
    const how = drawHow(random);
    const submit = await insist(client, { deployment, key: plan.key, body: bodyOf(plan, place, how), over, random });
    people.submits.push({ ...submit, joinable: how.dedupeKey !== undefined });
    const job = submit.answers.at(-1)?.job ?? null;
    await pause(random.between(50, 1_200), over);
    if (job !== null && random.chance(0.25)) {
      const cancelled = await cancel(client, { deployment, job, over, random });
      if (cancelled !== null) people.cancels.push(cancelled);
    }
    await pause(random.between(0, 1_200), over);
  }
}

function drawHow(random: Random): Pick<SubmitBody, "mode" | "interrupt" | "dedupeKey"> {
  const mode = random.pick<Mode>(["queue", "queue", "queue", "replace", "replace", "latest", "reject", "reject"]);
  const interrupt = random.pick<Interrupt>(["always", "before-apply", "never"]);
  return { mode, interrupt, ...(mode === "queue" && random.chance(0.3) ? { dedupeKey: "the-same" } : {}) };
}

/** Submits under one key until there is an answer; then, now and then, once more, and with another body. */
async function insist(
  client: Client,
  {
    deployment,
    key,
    body,
    over,
    random,
  }: { deployment: string; key: string; body: SubmitBody; over: AbortSignal; random: Random },
): Promise<Submit> {
  const params = { ns: client.ns, deployment };
  const headers = { "idempotency-key": `"${key}"` };
  const answers: Answer[] = [];
  let tryCount = 0;
  const send = async (sent: SubmitBody): Promise<Answer | null> => {
    tryCount += 1;
    const got = await tryOnce(client, submitJob, { params, body: sent, headers });
    if (got === null) return null;
    if (!got.ok) return { status: got.status, digest: "", code: got.problem.code, job: null, superseded: [] };
    const { job, superseded } = got.answer.body;
    return { status: got.answer.status, digest: digestOf(got.answer.body), code: null, job: job.id, superseded };
  };
  const first = await untilAnswered(() => send(body), over, random);
  if (first !== null) answers.push(first);
  // A refusal changed nothing and is not remembered: what the key would be told next is another matter.
  if (first?.job == null) return { key, deployment, joinable: false, tryCount, answers, otherBody: null };
  const again = random.chance(0.4) ? await send(body) : null;
  if (again !== null) answers.push(again);
  const other = random.chance(0.2) ? await send({ ...body, summary: "another body" }) : null;
  return { key, deployment, joinable: false, tryCount, answers, otherBody: other?.status ?? null };
}

async function cancel(
  client: Client,
  { job, over, random }: { deployment: string; job: string; over: AbortSignal; random: Random },
): Promise<Cancel | null> {
  const force = random.chance(0.2);
  const input = { params: { ns: client.ns, job }, body: { reason: "somebody changed their mind", force } };
  const answer = await untilAnswered(() => tryOnce(client, cancelJob, input), over, random);
  return answer?.ok === true ? { jobs: answer.answer.body.cancelled } : null;
}

/** Tries until there is an answer. Null: there was none, long after the faults had stopped. */
async function untilAnswered<T>(send: () => Promise<T | null>, over: AbortSignal, random: Random): Promise<T | null> {
  for (let endsAt = Infinity; Date.now() < endsAt;) {
    const answer = await send();
    if (answer !== null) return answer;
    await pause(random.between(20, 300));
    if (over.aborted && endsAt === Infinity) endsAt = Date.now() + PATIENCE_MS;
  }
  return null;
}

/** Stands for a whole JSON value. */
export function digestOf(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex").slice(0, 24);
}

/** True for a state that a job does not leave by itself. */
export function isOver(state: string): boolean {
  return isFinalJobState(state as JobState);
}

function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted === true) return resolve();
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
