import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { LIMITS } from "@plumule/protocol";
import { WORKER } from "../cli/src/dev/bundle.ts";
import { type Broker, openBroker } from "./broker.ts";
import { startWorker } from "./engine.ts";
import { openHttp } from "./http.ts";
import type { Tally } from "./workers/tally.ts";

/** What one job costs, and what its surroundings cost, step by step. Counts are per job, per session and per poll. */
export type Counts = {
  jobCount: number;
  job: readonly Tally[];
  /** A job that runs for so long, with held heartbeats. */
  longJobSeconds: number;
  longJob: readonly Tally[];
  session: readonly Tally[];
  emptyPoll: readonly Tally[];
};

/** Longer than the edge believes an earlier look-up of a credential, ms: whoever comes after it is looked up. */
const COLD_MS = LIMITS.credentialCacheMs + 500;
/** Until the alarm that a job set has fired and everybody has been told, ms. */
const SETTLE_MS = 16_000;

/**
 * Counts jobs that come one by one to a broker that has nothing else to do: every credential is looked up anew, and each job has a
 * deployment of its own whose alarm fires for it alone. The first job of each deployment is not counted.
 */
export async function countJobs(
  { jobCount, longJobSeconds }: Pick<Counts, "jobCount" | "longJobSeconds">,
  folder: string,
): Promise<Counts> {
  const adminToken = randomUUID();
  const running = await startWorker({
    file: "counted.ts",
    objects: WORKER.objects,
    bindings: { ADMIN_TOKEN: adminToken },
    folder,
  });
  const http = openHttp(running.url);
  const take = (): Promise<Tally[]> => http.send("GET", "/tally");
  try {
    const broker = await openBroker(running.url, adminToken);
    const lanes = Array.from({ length: jobCount }, (_, index) => `lane-${index}`);
    for (const lane of lanes) await runJob(broker, lane, 20);
    await runJob(broker, "long", 20);
    await pause(SETTLE_MS);
    await take();
    for (const lane of lanes) await runJob(broker, lane, COLD_MS);
    await pause(SETTLE_MS);
    const job = perOne(await take(), jobCount);
    await runJob(broker, "long", COLD_MS, longJobSeconds * 1_000);
    await pause(SETTLE_MS);
    const longJob = await take();
    await broker.beginSession();
    const session = await take();
    // The first poll after a while shows the runner to be back, which is not what it costs to wait.
    await broker.pollInVain(1_000);
    await pause(COLD_MS);
    await take();
    await broker.pollInVain(1_000);
    return { jobCount, job, longJobSeconds, longJob, session, emptyPoll: await take() };
  } finally {
    http.close();
    await running.stop();
  }
}

/** One job for a runner that has waited so long, with work that takes so long: as in a real runner, heartbeats are held meanwhile. */
async function runJob(broker: Broker, deployment: string, waitedMs: number, workMs = 0): Promise<void> {
  const poll = broker.poll();
  await pause(waitedMs);
  await broker.submit(deployment);
  const assignment = await poll;
  await broker.heartbeat(assignment);
  for (let left = workMs; left > 0; left -= LIMITS.heartbeatHoldMs)
    await broker.heartbeat(assignment, Math.min(left, LIMITS.heartbeatHoldMs));
  await broker.finish(assignment);
}

/** The share of one job in what so many jobs cost. */
function perOne(tallies: readonly Tally[], count: number): Tally[] {
  return tallies.map((tally) => ({
    ...tally,
    requestCount: tally.requestCount / count,
    rowsRead: tally.rowsRead / count,
    rowsWritten: Object.fromEntries(Object.entries(tally.rowsWritten).map(([table, rows]) => [table, rows / count])),
    activeMs: tally.activeMs / count,
  }));
}
