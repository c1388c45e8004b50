import { createHash } from "node:crypto";
import {
  call,
  deploymentSource,
  type Event,
  getDeploymentEvents,
  getJob,
  getLog,
  getNamespaceEvents,
  getStatements,
  namespaceSource,
  type RunView,
  verifyStatement,
} from "@plumule/protocol";
import { ask, type Client } from "./client.ts";
import type { StoredJob, StoredRun, StoredStream } from "./history.ts";
import { type JobPlan, KEY_LABEL, printedBy } from "./jobs.ts";
import { seen } from "./watchers.ts";

/** What the broker has stored of some deployments and of their namespace, read over HTTP. */
export async function collect(
  client: Client,
  deployments: readonly string[],
  plans: ReadonlyMap<string, JobPlan>,
): Promise<{ streams: StoredStream[]; jobs: StoredJob[] }> {
  const streams: StoredStream[] = [await namespaceStream(client)];
  const jobs: StoredJob[] = [];
  for (const deployment of deployments) {
    const events = await allEvents((since) =>
      ask(client, getDeploymentEvents, { params: { ns: client.ns, deployment }, query: { ...since } }),
    );
    streams.push({ source: deploymentSource(client.ns, deployment), events: events.map(seen) });
    const ids = new Set(events.flatMap((event) => (event.data.job === undefined ? [] : [event.data.job.id])));
    for (const id of ids) jobs.push(await storedJob(client, id, plans));
  }
  return { streams, jobs };
}

/** The namespace's own stream. What the deployments published is in it a moment later than in theirs. */
export async function namespaceStream(client: Client): Promise<StoredStream> {
  const events = await allEvents((since) =>
    ask(client, getNamespaceEvents, { params: { ns: client.ns }, query: { ...since } }),
  );
  return { source: namespaceSource(client.ns), events: events.map(seen) };
}

async function allEvents(
  page: (since: { since?: string }) => Promise<{ events: Event[]; cursor: string; more: boolean }>,
): Promise<Event[]> {
  const all: Event[] = [];
  for (let since: string | null = null; ;) {
    const { events, cursor, more } = await page(since === null ? {} : { since });
    all.push(...events);
    if (!more) return all;
    since = cursor;
  }
}

async function storedJob(client: Client, id: string, plans: ReadonlyMap<string, JobPlan>): Promise<StoredJob> {
  const { job, runs } = await ask(client, getJob, { params: { ns: client.ns, job: id } });
  const key = job.labels[KEY_LABEL] ?? null;
  const plan = plans.get(key ?? "");
  const envelopes = await statementsOf(client, id);
  const stored = await Promise.all(runs.map((run) => storedRun(client, run, envelopes)));
  return {
    id,
    deployment: job.deployment,
    key,
    state: job.state,
    printed: plan === undefined ? "" : printedBy(plan),
    runs: stored,
  };
}

async function storedRun(client: Client, run: RunView, envelopes: readonly unknown[]): Promise<StoredRun> {
  const text = await logText(client, run.id);
  const signed: StoredRun["signed"][number][] = [];
  for (const envelope of envelopes) {
    const verified = await verifyStatement(envelope, {
      signers: [run.runner],
      expected: { run: run.id, epoch: run.epoch },
    });
    if (verified.ok) signed.push(verified.claims.log);
  }
  return {
    id: run.id,
    epoch: run.epoch,
    state: run.state,
    reason: run.reason?.code ?? null,
    log: { state: run.log.state, bytes: run.log.bytes },
    text,
    textSha256: createHash("sha256").update(text, "latin1").digest("hex"),
    signed,
  };
}

async function statementsOf(client: Client, job: string): Promise<unknown[]> {
  const answer = await call({ fetch, baseUrl: client.url, bearer: client.token }, getStatements, {
    params: { ns: client.ns, job },
  });
  if (!answer.ok) return [];
  const lines = (await answer.response.text()).split("\n").filter((line) => line !== "");
  return lines.map((line) => JSON.parse(line) as unknown);
}

async function logText(client: Client, run: string): Promise<string> {
  for (let text = ""; ;) {
    const answer = await call({ fetch, baseUrl: client.url, bearer: client.token }, getLog, {
      params: { ns: client.ns, run },
      query: { offset: text.length },
    });
    if (!answer.ok) throw new Error(`the log of run ${run}: ${answer.problem.detail}`);
    const page = Buffer.from(await answer.response.arrayBuffer()).toString("latin1");
    text += page;
    if (page === "") return text;
  }
}
