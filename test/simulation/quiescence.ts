import { zstdDecompressSync } from "node:zlib";
import { createHash } from "node:crypto";
import { type Event, isFinalJobState, jobOfRun, type JobView, LIMITS } from "@plumule/protocol";
import type { Job } from "#durable-objects/deployment/core/model.ts";
import type { Book } from "./book.ts";
import { isTold, rowsOf, type Standing, standingOf } from "./invariants.ts";
import type { RunnerMachine } from "./machines.ts";
import type { HostedObject } from "./platform/objects.ts";
import type { Stage } from "./stage.ts";
import type { Watcher } from "./watchers.ts";

/** Bytes of one run's log begin at `epoch × SPAN` (`durable-objects/deployment/run-bytes.ts`). */
const SPAN = 2 ** 27;

function eventsOf(host: HostedObject): Event[] {
  return rowsOf<{ events: string }>(host, "SELECT events FROM event_rows ORDER BY first").flatMap(
    ({ events }) => JSON.parse(events) as Event[],
  );
}

function jobsOf(host: HostedObject): Job[] {
  return rowsOf<{ record: string }>(host, "SELECT record FROM jobs ORDER BY created_at").map(
    ({ record }) => JSON.parse(record) as Job,
  );
}

/** What is still going on, in words; null when everything has come to rest (I6, I17). */
export function restless(
  stage: Stage,
  watchers: readonly Watcher[],
  machines: readonly RunnerMachine[],
): string | null {
  for (const host of stage.hosts.all.values()) {
    if (host.storage.isDirty) return `${host.label} is writing`;
    const standing = standingOf(host);
    if (standing === null) continue;
    if (standing.open !== null) return `${host.label}: ${standing.open}`;
    if (host.className === "Deployment" && standing.published < standing.told)
      return `${host.label} has told ${standing.published} of ${standing.told}`;
  }
  for (const watcher of watchers) {
    const head = streamOf(stage, watcher)?.head ?? watcher.state.sequence;
    if (watcher.state.sequence !== head) return `${watcher.name} is at ${watcher.state.sequence} of ${head}`;
  }
  for (const { name, resultCount } of machines)
    if (resultCount > 0) return `${name} has ${resultCount} results to deliver`;
  for (const execution of stage.world.executions.values())
    if (execution.owner.alive && execution.endedAt === null) return `run ${execution.run} still works`;
  return null;
}

/** The stream that somebody watches; null while there is none, and when its deployment was removed. */
function streamOf(stage: Stage, { tenant: { ns }, deployment }: Watcher): Standing | null {
  const host =
    deployment === null ? stage.hosts.find("Namespace", ns) : stage.hosts.find("Deployment", `${ns}/${deployment}`);
  const standing = host === undefined ? null : standingOf(host);
  return standing?.removed === true ? null : standing;
}

/** What has to hold once everything has come to rest. Events tell of every job; a deployment that was removed has forgotten its rows. */
export function checkEnd(stage: Stage, book: Book, watchers: readonly Watcher[]): void {
  const { world } = stage;
  const views = new Map<string, JobView>();
  for (const host of stage.hosts.all.values()) {
    if (host.className !== "Deployment" || standingOf(host) === null) continue;
    for (const { data } of eventsOf(host)) if (data.job !== undefined) views.set(data.job.id, data.job);
    for (const job of jobsOf(host)) {
      if (views.get(job.id)?.state !== job.state)
        world.violate("I22", `${job.id} is ${job.state}, its last event says ${views.get(job.id)?.state}`);
      checkLogs(stage, host, job);
    }
    checkIndex(stage, host, views);
  }
  for (const { id, state } of views.values())
    if (!isFinalJobState(state)) world.violate("I6", `${id} is ${state} for ever`);
  for (const [id, { deployment }] of book.accepted)
    if (!views.has(id)) world.violate("I2", `${id} of ${deployment} was accepted and is not there`);
  for (const [id, { why }] of book.stopped)
    if (views.get(id)?.state === "succeeded") world.violate("I4", `${id} was ${why}, and succeeded`);
  checkPushes(stage, book, [...views.values()]);
  for (const watcher of watchers) checkWatcher(stage, watcher, views);
}

/** Time from the answer to a cancel until nothing of its job is left, ms: the lease, the grace, and what a heartbeat takes at worst. */
const STOP_MS = LIMITS.leaseMs + LIMITS.graceMs + LIMITS.heartbeatHoldMs + 30_000;
/** How long work may go on after its lease has ended at the broker, ms: by then its machine has ended it by its own clock. */
const FENCE_MS = 3_000;

/** Whoever was told that a job is stopped can rely on it in good time, and nothing works without a lease, whatever a runner hears (I20). */
export function checkStops({ world, hosts, tenants }: Stage, book: Book): void {
  const { now } = world.clock;
  if (world.brokerClockJumped) return;
  for (const execution of world.executions.values()) {
    const { run, deployment, endedAt, owner } = execution;
    if (endedAt !== null || !owner.alive) continue;
    const stopped = book.stopped.get(jobOfRun(run));
    if (stopped !== undefined && now - stopped.at > STOP_MS)
      world.violate("I20", `${run} works ${STOP_MS} ms after it was ${stopped.why}`);
    const homes = tenants.map(({ ns }) => hosts.find("Deployment", `${ns}/${deployment}`));
    const isLeased = homes.some((host) => host !== undefined && standingOf(host)?.leased.has(run) === true);
    execution.unleasedAt = isLeased ? null : (execution.unleasedAt ?? now);
    if (execution.unleasedAt !== null && now - execution.unleasedAt > FENCE_MS)
      world.violate("I20", `${run} works ${FENCE_MS} ms after its lease has ended`);
  }
}

/** Stored bytes are what the job wrote, whole when the run was delivered (I11). */
function checkLogs({ world }: Stage, host: HostedObject, job: Job): void {
  for (const run of job.runs) {
    const [first, end] = [run.epoch * SPAN, (run.epoch + 1) * SPAN];
    const rows = host.storage.sql
      .exec(
        "SELECT position, bytes, unpacked_bytes FROM log_chunks WHERE position >= ? AND position < ? ORDER BY position",
        first,
        end,
      )
      .toArray() as { position: number; bytes: ArrayBuffer; unpacked_bytes: number | null }[];
    const chunks = rows.map(({ bytes, unpacked_bytes: unpackedBytes }) =>
      unpackedBytes === null ? Buffer.from(bytes) : zstdDecompressSync(bytes),
    );
    let size = 0;
    for (const [at, { position }] of rows.entries()) {
      if (position !== first + size)
        world.violate("I11", `the log of ${run.id} has ${size} bytes, then some at ${position - first}`);
      size += chunks[at]?.length ?? 0;
    }
    const stored = Buffer.concat(chunks);
    const execution = world.executions.get(run.id);
    const written = Buffer.concat(execution?.lostPower === true ? [] : (execution?.output ?? []));
    const agreed = Math.min(stored.length, written.length);
    if (!stored.subarray(0, agreed).equals(written.subarray(0, agreed)) && run.log.state !== "mismatch")
      world.violate("I11", `the log of ${run.id} (${run.state}) is not what its job wrote`);
    if (run.log.state !== "complete") continue;
    if (run.log.bytes !== stored.length || run.log.sha256 !== createHash("sha256").update(stored).digest("hex"))
      world.violate("I11", `the log of ${run.id} is called complete and is not what was signed`);
    if (stored.length < written.length)
      world.violate("I11", `the log of ${run.id} lacks ${written.length - stored.length} bytes`);
  }
}

/** The namespace has every event of its deployments once and in order, and lists each job as it is. */
function checkIndex({ world, hosts }: Stage, host: HostedObject, views: ReadonlyMap<string, JobView>): void {
  const [ns = "", deployment = ""] = host.name.split("/");
  const namespace = hosts.find("Namespace", ns);
  if (namespace === undefined) return;
  const source = `/${ns}/deployments/${deployment}`;
  const told = eventsOf(host)
    .filter(isTold)
    .map(({ sequence }) => sequence);
  const forwarded = eventsOf(namespace).flatMap(({ data }) => {
    const origin = data["origin"] as { source: string; sequence: string } | undefined;
    return origin?.source === source ? [origin.sequence] : [];
  });
  if (told.join() !== forwarded.join())
    world.violate(
      "I17",
      `${namespace.label} has ${forwarded.map(Number).join(" ")} of ${host.label}, which told ${told.map(Number).join(" ")}`,
    );
  const listed = new Map(
    rowsOf<{ id: string; view: string }>(namespace, "SELECT id, view FROM jobs").map(({ id, view }) => [
      id,
      JSON.parse(view) as JobView,
    ]),
  );
  for (const { id, state } of views.values()) {
    const view = listed.get(id);
    if (views.get(id)?.deployment === deployment && view?.namespace === ns && view.state !== state)
      world.violate("index", `${namespace.label} lists ${id} as ${view.state}, it is ${state}`);
  }
  for (const { id } of jobsOf(host))
    if (!listed.has(id)) world.violate("index", `${namespace.label} does not list ${id}`);
}

/** An accepted push has made its job, and no push has made two. */
function checkPushes({ world, hosts }: Stage, book: Book, jobs: readonly JobView[]): void {
  for (const [commit, tenant] of book.pushed) {
    const made = jobs.filter(({ source, actor }) => source?.commit === commit && actor.startsWith("hook:"));
    if (made.length > 1) world.violate("I8", `the push of ${commit} made ${made.length} jobs`);
    const namespace = hosts.find("Namespace", tenant.ns);
    const deliveries = namespace === undefined ? [] : rowsOf<{ record: string }>(namespace, "SELECT * FROM deliveries");
    const known = deliveries.filter((row) => JSON.stringify(row).includes(commit));
    if (known.length === 0) world.violate("I2", `the push of ${commit} was accepted and is not there`);
    if (made.length === 0 && !known.some((row) => JSON.stringify(row).includes("refused")))
      world.violate("I2", `the push of ${commit} was accepted and made no job`);
  }
}

/** A snapshot with all that followed is what is stored, and what was read of logs is a part of them (I22). */
function checkWatcher(stage: Stage, watcher: Watcher, jobs: ReadonlyMap<string, JobView>): void {
  if (streamOf(stage, watcher) === null) return;
  for (const view of Object.values(watcher.state.jobs)) {
    const job = jobs.get(view.id);
    if (job?.state !== view.state)
      stage.world.violate(
        "I22",
        `${watcher.name} shows ${view.id} as ${view.state}, it is ${job?.state ?? "not there"}`,
      );
  }
  for (const [run, log] of watcher.logs) {
    const execution = stage.world.executions.get(run);
    if (log.skipped || execution === undefined || execution.lostPower) continue;
    const [got, written] = [Buffer.concat(log.bytes), Buffer.concat(execution.output)];
    const agreed = Math.min(got.length, written.length);
    if (!got.subarray(0, agreed).equals(written.subarray(0, agreed)))
      stage.world.violate("I11", `${watcher.name} read another log of ${run} than its job wrote`);
    if (log.ended !== null && log.ended.bytes !== got.length)
      stage.world.violate("I11", `${watcher.name} read ${got.length} of ${log.ended.bytes} bytes of ${run}`);
  }
}
