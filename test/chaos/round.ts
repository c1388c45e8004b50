import {
  createNamespace,
  createToken,
  deploymentSource,
  getDeployment,
  getJob,
  type IsolationLevel,
  listRunners,
  parseCursor,
  waitMs,
} from "@plumule/protocol";
import { readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { processesAbout } from "../support/command-line.ts";
import { type MortalBroker, startMortalBroker } from "./broker.ts";
import { ask, type Client } from "./client.ts";
import { collect, namespaceStream } from "./collect.ts";
import { type Counts, countFaults, countSeen } from "./counts.ts";
import { watchWithoutReading } from "./deaf.ts";
import { type MortalRunner, startMortalRunner } from "./fleet.ts";
import type { History } from "./history.ts";
import { type JobPlan, parseEvidence } from "./jobs.ts";
import { type KillPlan, killAround, measureEngine } from "./killing.ts";
import { createPeople, firstJob, isOver, letPeopleAct, type Place } from "./people.ts";
import { type Proxy, startProxy } from "./proxy.ts";
import { randomOf } from "./random.ts";
import { listenToDeployment, pollDeployment, watchDeployment, type Watcher, watchNamespace } from "./watchers.ts";

/** What a round is made of. The same seed draws the same jobs and faults; at which moment each meets which is the machine's to decide. */
export type RoundPlan = KillPlan & {
  /** How long faults last, ms. */
  stormMs: number;
  deployments: number;
  runners: number;
  /** Cuts a runner with a long job off for so long, ms, which is meant to be longer than a lease; 0 for not at all. */
  partMs: number;
};

/** All that was seen of a round, and how often what happened. */
export type Outcome = { history: History; counts: Counts };

const CONTAINED = new Set<IsolationLevel>(["userns", "bwrap", "container"]);
const ADMIN = "admin-token-of-the-chaos";
/** Sockets that are never read; all that they ask for is DEAF_SOCKETS × 31 × the loud log, more than the engine may take. */
const DEAF_SOCKETS = 6;
const ENGINE_BYTES = 320 * 1024 * 1024;
/** How long everything may take to come to rest when nothing goes wrong any more, ms: a lease, a retry and the work itself. */
const REST_MS = 90_000;
const LOUD: JobPlan = {
  key: "loud.0",
  stepCount: 10,
  linesPerStep: 4_000,
  restMs: 1,
  exitCode: 0,
  daemons: false,
  stubborn: false,
  graceMs: 500,
};
/** Outlasts a lease, and uses all of its grace. */
const LONG: JobPlan = {
  ...LOUD,
  key: "parted.0",
  stepCount: 350,
  linesPerStep: 1,
  restMs: 200,
  stubborn: true,
  graceMs: 3_000,
};

/**
 * Runs one round in `folder`, from an empty broker to the end of everything that was started, and answers all that was seen. `leave` breaks it
 * off; it rejects then, and when something cannot be started again. What runners said is in `runners.txt` in any case.
 */
export async function runRound(
  plan: RoundPlan,
  { folder, say, leave }: { folder: string; say: (line: string) => void; leave: AbortSignal },
): Promise<Outcome> {
  const { seed } = plan;
  const mark = basename(folder);
  const evidence = join(folder, "evidence");
  await writeFile(evidence, "");
  const broker = await startMortalBroker(join(folder, "broker"), ADMIN, randomOf(`${seed} port`));
  const network = await startProxy(broker.port, randomOf(`${seed} network of people`));
  const names = Array.from({ length: plan.runners }, (_, index) => `runner-${index + 1}`);
  let starting: Promise<MortalRunner>[] = [];
  let seen: Seen;
  try {
    const direct = await openNamespace(broker.url);
    starting = names.map((name) => startMortalRunner(direct, { name, port: broker.port, folder, seed }));
    const runners = await Promise.all(starting);
    const place: Place = { evidence, mark, contained: await isContained(direct) };
    if (!place.contained) say(`${seed}: no job leaves a daemon, because the isolation of this machine would let it go`);
    const client: Client = { ...direct, url: network.url };
    seen = await storm(plan, { place, broker, direct, client, network, runners, leave }, say);
  } finally {
    const started = (await Promise.allSettled(starting)).flatMap((one) =>
      one.status === "fulfilled" ? [one.value] : [],
    );
    await Promise.all(started.map((runner) => runner.stop()));
    await network.close();
    await broker.stop();
    const said = started.map((runner) => `=== ${runner.name}\n${runner.said()}`);
    await writeFile(join(folder, "runners.txt"), said.join("\n"));
  }
  const lines = parseEvidence(await readFile(evidence, "utf8"));
  const history: History = { ...seen.history, evidence: lines, leftovers: await leftovers(mark) };
  return { history, counts: { ...seen.counts, ...countSeen(history) } };
}

type Stage = {
  place: Place;
  broker: MortalBroker;
  /** Past the bad network. */
  direct: Client;
  client: Client;
  network: Proxy;
  runners: readonly MortalRunner[];
  leave: AbortSignal;
};

/** What is seen before everything is stopped. */
type Seen = {
  history: Omit<History, "evidence" | "leftovers">;
  counts: Omit<Counts, keyof ReturnType<typeof countSeen>>;
};

async function storm(plan: RoundPlan, stage: Stage, say: (line: string) => void): Promise<Seen> {
  const { seed, stormMs } = plan;
  const { place, broker, direct, client, network, runners, leave } = stage;
  const people = createPeople();
  const lanes = Array.from({ length: plan.deployments }, (_, index) => `lane-${index + 1}`);
  const first = async (deployment: string, job: JobPlan): Promise<string> =>
    firstJob(direct, people, { deployment, job, place });
  const loud = await first("loud", LOUD);
  const deaf = watchWithoutReading(
    { ...direct, port: broker.port, deployment: "loud", run: await lastRun(direct, loud) },
    DEAF_SOCKETS,
  );
  for (const lane of lanes) await first(lane, { ...LOUD, key: `${lane}.0`, linesPerStep: 2 });
  const all = ["loud", ...lanes];
  let holder: MortalRunner | null = null;
  if (plan.partMs > 0) {
    all.push("parted");
    holder = await holderOf(direct, await first("parted", LONG), runners);
  }
  const watchers = [...watchLanes(client, lanes), watchNamespace(client, "overseer")];

  const proxies = [network, ...runners.map((runner) => runner.proxy)];
  for (const proxy of proxies) proxy.storm();
  const over = new AbortController();
  const acting = letPeopleAct(client, people, { deployments: lanes, place, seed, over: over.signal });
  const memory = measureEngine(broker);
  const victims = runners.filter((runner) => runner !== holder);
  const killing = killAround(plan, broker, victims, over.signal);
  const parted = holder?.proxy.part(plan.partMs, leave);
  say(`${seed}: a storm of ${stormMs / 1000} s over ${plan.deployments} deployments and ${plan.runners} runners`);
  await Promise.all([waitMs(stormMs, leave), parted]);
  over.abort();
  const kills = await killing;
  for (const proxy of proxies) proxy.calm();
  say(`${seed}: calm`);
  await acting;
  await comeToRest(direct, all, watchers, leave);

  await Promise.all(watchers.map((watcher) => watcher.stop()));
  const stored = await collect(direct, all, people.plans);
  deaf.stop();
  return {
    history: {
      submits: people.submits,
      cancels: people.cancels,
      watches: watchers.map((watcher) => watcher.watch()),
      logWatches: watchers.flatMap((watcher) => watcher.logs()),
      ...stored,
      faults: client.faults,
      memory: { maxBytes: memory.stop(), limitBytes: ENGINE_BYTES },
    },
    counts: { ...kills, ...countFaults(proxies), deafConnections: deaf.connections() },
  };
}

/** Each deployment has a watcher over WebSockets, and a reader of its history of one kind or the other. */
function watchLanes(client: Client, lanes: readonly string[]): Watcher[] {
  return lanes.flatMap((lane, index) => [
    watchDeployment(client, `watcher ${index + 1}`, lane),
    index % 2 === 0
      ? listenToDeployment(client, `listener ${index + 1}`, lane)
      : pollDeployment(client, `poller ${index + 1}`, lane),
  ]);
}

async function openNamespace(url: string): Promise<Client> {
  const ns = "chaos";
  const admin: Client = { url, ns, token: ADMIN, faults: [] };
  await ask(admin, createNamespace, { params: {}, body: { id: ns } });
  const { token } = await ask(admin, createToken, { params: { ns }, body: { name: "chaos", scopes: ["admin"] } });
  return { ...admin, token };
}

/** Whether the runners' isolation holds everything that a job leaves behind, so that nothing of it outlives the job or the runner. */
async function isContained(client: Client): Promise<boolean> {
  for (;;) {
    const { items } = await ask(client, listRunners, { params: { ns: client.ns } });
    const offers = items.flatMap(({ offer }) => (offer === null ? [] : [offer]));
    // A runner says what it has to offer when it asks for work.
    if (offers.length === items.length) return offers.every(({ isolation }) => CONTAINED.has(isolation));
    await pause(50);
  }
}

/** The run of a job that has come to its end. */
async function lastRun(client: Client, job: string): Promise<string> {
  for (;;) {
    const { job: at } = await ask(client, getJob, { params: { ns: client.ns, job } });
    if (isOver(at.state) && at.run !== null) return at.run;
    await pause(50);
  }
}

/** The runner that a job is at work on. */
async function holderOf(client: Client, job: string, runners: readonly MortalRunner[]): Promise<MortalRunner | null> {
  for (;;) {
    const { job: at } = await ask(client, getJob, { params: { ns: client.ns, job } });
    if (at.state === "running") {
      const { items } = await ask(client, listRunners, { params: { ns: client.ns } });
      const name = items.find(({ id }) => id === at.runner)?.name;
      return runners.find((runner) => runner.name === name) ?? null;
    }
    await pause(50);
  }
}

/** Waits until no job has anything before it and every watcher has seen all; what takes too long is found by the check. */
async function comeToRest(
  client: Client,
  deployments: readonly string[],
  watchers: readonly Watcher[],
  leave: AbortSignal,
): Promise<void> {
  const heads = new Map<string, number>();
  const endsAt = Date.now() + REST_MS;
  const isAtRest = async (): Promise<boolean> => {
    for (const deployment of deployments) {
      const { jobs, cursor } = await ask(client, getDeployment, { params: { ns: client.ns, deployment } });
      if (jobs.some(({ state }) => !isOver(state))) return false;
      heads.set(deploymentSource(client.ns, deployment), parseCursor(cursor)?.sequence ?? 0);
    }
    const { source, events } = await namespaceStream(client);
    const hasSettled = heads.get(source) === events.length;
    heads.set(source, events.length);
    return (
      hasSettled && watchers.every((watcher) => watcher.reachedSequence() >= (heads.get(watcher.watch().source) ?? 0))
    );
  };
  // A deployment tells its namespace a quarter of a second later what happened.
  while (!(await isAtRest()) && Date.now() < endsAt) {
    await waitMs(1_000, leave);
    leave.throwIfAborted();
  }
}

async function leftovers(mark: string): Promise<string[]> {
  for (let tries = 0; tries < 20 && processesAbout(mark).length > 0; tries += 1) await pause(100);
  return processesAbout(mark);
}
