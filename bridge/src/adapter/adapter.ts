import { randomUUID } from "node:crypto";
import { join } from "node:path";
import {
  accepted,
  type ClientDeps,
  type DeliveryView,
  getDeploymentEvents,
  getJob,
  isFinalJobState,
  type JobDetail,
  type JobId,
  type JobView,
  LIMITS,
  listDeliveries,
  type Push,
  refused,
  type Result,
  type Signer,
  wholeState,
} from "@plumule/protocol";
import { type Ask, asker, type AskRefusal } from "../ask.ts";
import { deliver, describeEnd } from "../deliver.ts";
import { readFollowed } from "../followed.ts";
import { audienceOf } from "../push.ts";
import type { Target } from "../queue.ts";
import { pushOfChange } from "./placed.ts";
import { finishedLine, readRequest, triggeredLine } from "./request.ts";

/** Where an adapter sends pushes, and the home of the node beside it. `fetchFrom` are seeds from which runners without a node fetch public repositories. */
export type AdapterOptions = Target & { radHome: string; fetchFrom: readonly string[] };

/** What an adapter has of the world. `bearer` may read the namespace; `answer` writes one line for radicle-ci-broker, `say` one for its log. */
export type AdapterDeps = {
  fetch: ClientDeps["fetch"];
  bearer: string | undefined;
  signer: Signer;
  now: () => Date;
  pause: (ms: number) => Promise<void>;
  answer: (line: string) => void;
  say: (line: string) => void;
};

/** Why nothing, or nothing more, was answered. `no-job` and `held`: nothing has run, and radicle-ci-broker is told of no run. */
export type AdapterRefusal = "not-a-request" | "no-job" | "held" | "unreachable" | AskRefusal;

/** How long the broker may take to make a job of a push, ms; radicle-ci-broker's own limit on runs is longer. */
const BUDGET_MS = 5 * 60_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;
/** Pages of deliveries that are searched for the first of two copies. */
const PAGES = 10;

/**
 * Does one request of radicle-ci-broker: tells the broker of the push as a bridge would, answers `triggered` with the page of the job, and
 * `finished` when it has ended. When a bridge was earlier it is that push's job. Nothing is cancelled when the adapter is killed.
 */
export async function runAdapter(
  line: string,
  options: AdapterOptions,
  deps: AdapterDeps,
): Promise<Result<"success" | "failure", AdapterRefusal>> {
  const request = readRequest(line);
  if (!request.ok) return request;
  const { url, namespace, radHome, fetchFrom } = options;
  const push = await pushOfChange(request.value, join(radHome, "storage"), {
    audience: audienceOf(url, namespace),
    seeds: fetchFrom,
    followed: await readFollowed(radHome),
  });
  if (!push.ok) return push.code === "gone" ? refused("gone", push.detail) : refused("not-a-request", push.detail);
  const ask = asker({ ...deps, url });
  const delivery = await tell(push.value, options, deps, ask);
  if (!delivery.ok) return delivery;
  const jobs: JobView[] = [];
  for (const { job } of delivery.value.results) {
    if (job === null) continue;
    const read = await ask(getJob, { params: { ns: namespace, job } });
    if (!read.ok) return read;
    jobs.push(asWhole(read.value.body));
  }
  const [first] = jobs;
  if (first === undefined)
    return refused("no-job", `${push.value.ref}: ${delivery.value.results.map(({ detail }) => detail).join("; ")}`);
  const page = (job: JobId): string => `${url}/j/${job}`;
  const held = jobs.find(({ state }) => state === "held");
  if (held !== undefined) return refused("held", `it waits for an approval: ${page(held.id)}`);
  deps.answer(triggeredLine(first.id, page(first.id)));
  const ends: JobView[] = [];
  for (const job of jobs) {
    deps.say(`job ${job.id} of ${job.deployment}: ${page(job.id)}`);
    const end = await endOf(job, namespace, ask);
    if (!end.ok) return end;
    deps.say(`job ${job.id} has ${end.value.state}${end.value.reason === null ? "" : `: ${end.value.reason.detail}`}`);
    ends.push(end.value);
  }
  // `skipped`: what it would have built is built already.
  const result = ends.every(({ state }) => state === "succeeded" || state === "skipped") ? "success" : "failure";
  deps.answer(finishedLine(result));
  return accepted(result);
}

/** Sends the webhook; of a copy it answers the delivery that came first, once its jobs are known. */
async function tell(
  push: Push,
  { url, namespace, hook }: Target,
  deps: AdapterDeps,
  ask: Ask,
): Promise<Result<DeliveryView, AdapterRefusal>> {
  const queued = {
    id: `cib_${randomUUID()}`,
    createdAt: deps.now().toISOString(),
    target: { url, namespace, hook },
    body: JSON.stringify(push),
  };
  const sent = await deliver(queued, { ...deps, budgetMs: BUDGET_MS });
  if (sent.end !== "delivered") {
    const [detail = ""] = describeEnd(push.ref, sent, queued, "given up");
    return refused(sent.end === "refused" ? "denied" : "unreachable", detail);
  }
  if (sent.delivery.state !== "duplicate") return accepted(sent.delivery);
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
    const original = await findOriginal(sent.delivery, namespace, ask);
    if (!original.ok || original.value?.state !== "accepted")
      return original.ok ? accepted(original.value ?? sent.delivery) : original;
    await deps.pause(pauseMs);
  }
}

/** The delivery that a copy is a copy of: the newest of the same commit and ref that is none itself. */
async function findOriginal(
  copy: DeliveryView,
  ns: string,
  ask: Ask,
): Promise<Result<DeliveryView | null, AdapterRefusal>> {
  let cursor: string | undefined;
  for (let page = 0; page < PAGES; page++) {
    const query = { limit: LIMITS.listPage, ...(cursor === undefined ? {} : { cursor }) };
    const read = await ask(listDeliveries, { params: { ns }, query });
    if (!read.ok) return read;
    const found = read.value.body.items.find(
      ({ state, repository, ref, after }) =>
        state !== "duplicate" &&
        state !== "ignored" &&
        repository === copy.repository &&
        ref === copy.ref &&
        after === copy.after,
    );
    if (found !== undefined) return accepted(found);
    if (read.value.body.nextCursor === null) break;
    cursor = read.value.body.nextCursor;
  }
  return accepted(null);
}

/** A job as it stands with the jobs that its task file became: it has ended when all of them have. */
function asWhole({ job, steps = [] }: JobDetail): JobView {
  const state = wholeState(job, steps);
  const decisive = steps.find((step) => step.state === state);
  return { ...job, state, reason: job.reason ?? decisive?.reason ?? null };
}

/** Waits until a job has ended, however long that takes: the events of its lane say when to look again. */
async function endOf(job: JobView, ns: string, ask: Ask): Promise<Result<JobView, AdapterRefusal>> {
  let since: string | undefined;
  for (let now = job; ;) {
    if (isFinalJobState(now.state)) return accepted(now);
    const query = { wait: LIMITS.historyHoldMs / 1_000, ...(since === undefined ? {} : { since }) };
    const page = await ask(getDeploymentEvents, { params: { ns, deployment: job.deployment }, query });
    // A cursor that has become too old: from the beginning of what is kept.
    since = page.ok ? page.value.body.cursor : undefined;
    if (page.ok && page.value.body.more) continue;
    const read = await ask(getJob, { params: { ns, job: job.id } });
    if (!read.ok) return read;
    now = asWhole(read.value.body);
  }
}
