import {
  createNamespace,
  createToken,
  deploymentSource,
  getDeployment,
  getJob,
  listRunners,
  parseCursor,
} from "@plumule/protocol";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
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

/** Runs one round in `folder`, from an empty broker to its end, and answers all that was seen. Says on `say` what it does. */
export async function runRound(plan: RoundPlan, folder: string, say: (line: string) => void): Promise<Outcome> {
  const { seed } = plan;
  const place: Place = { evidence: join(folder, "evidence"), mark: `chaos-${folder.split("/").at(-1)}` };
  await writeFile(place.evidence, "");
  const broker = await startMortalBroker(join(folder, "broker"), ADMIN, randomOf(`${seed} port`));
  const direct = await openNamespace(broker.url);
  const network = await startProxy(broker.port, randomOf(`${seed} network of people`));
  const client: Client = { ...direct, url: network.url };
  const names = Array.from({ length: plan.runners }, (_, index) => `runner-${index + 1}`);
  const runners = await Promise.all(
    names.map((name) => startMortalRunner(direct, { name, port: broker.port, folder, seed, mark: place.mark })),
  );
  try {
    return await storm(plan, { place, broker, direct, client, network, runners }, say);
  } finally {
    await Promise.all(runners.map((runner) => runner.stop()));
    await network.close();
    await broker.stop();
    await writeFile(
      join(folder, "runners.txt"),
      runners.map((runner) => `=== ${runner.name}\n${runner.said()}`).join("\n"),
    );
  }
}

type Stage = {
  place: Place;
  broker: MortalBroker;
  /** Past the bad network. */
  direct: Client;
  client: Client;
  network: Proxy;
  runners: readonly MortalRunner[];
};

async function storm(plan: RoundPlan, stage: Stage, say: (line: string) => void): Promise<Outcome> {
  const { seed, stormMs } = plan;
  const { place, broker, direct, client, network, runners } = stage;
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
  const parted = holder?.proxy.part(plan.partMs);
  say(`${seed}: a storm of ${stormMs / 1000} s over ${plan.deployments} deployments and ${plan.runners} runners`);
  await Promise.all([pause(stormMs), parted]);
  over.abort();
  const kills = await killing;
  for (const proxy of proxies) proxy.calm();
  say(`${seed}: calm`);
  await acting;
  await comeToRest(direct, all, watchers);

  await Promise.all(watchers.map((watcher) => watcher.stop()));
  const stored = await collect(direct, all, people.plans);
  deaf.stop();
  const maxBytes = memory.stop();
  await Promise.all(runners.map((runner) => runner.stop()));
  await broker.stop();
  const history: History = {
    submits: people.submits,
    cancels: people.cancels,
    watches: watchers.map((watcher) => watcher.watch()),
    logWatches: watchers.flatMap((watcher) => watcher.logs()),
    ...stored,
    evidence: parseEvidence(await readFile(place.evidence, "utf8")),
    faults: client.faults,
    leftovers: await leftovers(place.mark),
    memory: { maxBytes, limitBytes: ENGINE_BYTES },
  };
  return {
    history,
    counts: { ...kills, ...countSeen(history), ...countFaults(proxies), deafConnections: deaf.connections() },
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
async function comeToRest(client: Client, deployments: readonly string[], watchers: readonly Watcher[]): Promise<void> {
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
  while (!(await isAtRest()) && Date.now() < endsAt) await pause(1_000);
}

async function leftovers(mark: string): Promise<string[]> {
  for (let tries = 0; tries < 20 && processesAbout(mark).length > 0; tries += 1) await pause(100);
  return processesAbout(mark);
}
