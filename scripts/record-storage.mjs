// Records what a released broker and its runner keep, for the test that later versions go on with it:
//   node scripts/record-storage.mjs <protocol version>
// The release must have been frozen (freeze-release.mjs). Run it once per release; what it wrote is committed and never made anew.

import { createPrivateKey } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { openPeer } from "../test/support/peer.ts";
import { releasedProtocol, releasedRunner } from "../test/support/released.ts";
import { databasesOf, dumpOf, withDatabase } from "../test/support/storage.ts";
import { allOf, startWorkers } from "../test/support/workers.ts";
import { root } from "./child-process.mjs";

const release = `v${process.argv[2] ?? ""}`;
const folder = join(root, "test/fixtures/storage", release);
const scratch = mkdtempSync(join(tmpdir(), "plumule-storage-"));
const stateDir = join(scratch, "broker");

/**
 * All clocks here are far ahead, so that a test can set its own to the same time: its alarms, which real time decides, then do not come by
 * themselves, and no deadline has passed.
 */
const AHEAD_MS = 50 * 365 * 86_400_000;
function moveClock(/** @type {number} */ ms) {
  const Then = Date;
  globalThis.Date = /** @type {DateConstructor} */ (
    class extends Then {
      /** @param {[] | [number]} args */
      constructor(...args) {
        if (args.length === 0) super(Then.now() + ms);
        else super(...args);
      }
      static now() {
        return Then.now() + ms;
      }
    }
  );
}
moveClock(AHEAD_MS);
const prologue = `(${moveClock.toString()})(${AHEAD_MS});`;

const protocol = await releasedProtocol(release);
const code = await releasedRunner(release);
const workers = await startWorkers({ recorded: allOf(release) }, { stateDir, prologue });
const peer = await openPeer(workers.urls["recorded"] ?? "", protocol);
const shell = (/** @type {string} */ script) => ({ task: /** @type {const} */ ({ kind: "shell", script }) });
/** @type {Record<string, unknown>} */
const assignments = {};
/** @type {Record<string, string>} */
const jobs = {};
const idempotency = { key: "recorded-key", body: { ...shell("echo queued"), requires: { labels: ["king"] } } };
/** @type {string[]} */
const runners = [];

try {
  await fillLane();
  await fillRuns();
  await fillQueues();
  const recordedAt = Date.now();
  await workers.stop();
  keep(recordedAt);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
// The runners of jobs that are still running have nobody to tell any more.
process.exit(0);

/**
 * A runner that works for jobs with a label of its own, and notes what it is given. `muted` requests of it get no answer.
 *
 * @param {string} name
 * @param {(path: string, count: number) => boolean} muted
 */
async function work(name, muted = () => false) {
  let count = 0;
  /** @type {import("../protocol/src/client.ts").ClientDeps["fetch"]} */
  const fetched = async (url, init) => {
    const path = new URL(url).pathname.split("/").at(-1) ?? "";
    if (muted(path, path === "heartbeat" ? (count += 1) : 0)) return new Promise(() => {});
    const answer = await fetch(url, init);
    if (path === "poll" && answer.status === 200) {
      const given = await answer.clone().json();
      assignments[given.job] = { ...given, recordedWith: name };
    }
    return answer;
  };
  await peer.startRunner(code, scratch, { name, labels: [name] }, fetched);
  runners.push(name);
}

/**
 * Submits a job and notes it under a name.
 *
 * @param {string} name
 * @param {string} deployment
 * @param {string} label of the runner that may take it
 * @param {Omit<import("../protocol/src/submit.ts").SubmitBody, "task"> & { script: string }} body
 */
async function submit(name, deployment, label, { script, ...body }) {
  const job = await peer.submit(deployment, { ...shell(script), requires: { labels: [label] }, ...body });
  jobs[name] = job.id;
  return job.id;
}

/** A lane with a past: every common end, one job that runs and has begun its log, and others behind it. */
async function fillLane() {
  await work("king");
  await peer.until(
    await submit("succeeded", "running", "king", { script: "echo one; echo two", labels: { by: "hand" } }),
  );
  await peer.until(await submit("failed", "running", "king", { script: "echo three; exit 3" }));
  await submit("superseded", "running", "nobody", { script: "true", env: { A: "1" }, configuration: { a: [1] } });
  await peer.cancel(await submit("cancelled", "running", "nobody", { script: "true", mode: "replace" }));
  const timeouts = { runMs: 3_600_000 };
  const running = await submit("running", "running", "king", { script: "echo begun; sleep 600", timeouts });
  const { runs } = await peer.until(running, ({ job }) => job.state === "running");
  while ((await peer.log(runs[0]?.id ?? "")) === "") await pause(50);
  const params = { ns: peer.ns, deployment: "running" };
  const headers = { "idempotency-key": idempotency.key };
  const queued = await protocol.call(peer.client, protocol.submitJob, { params, body: idempotency.body, headers });
  if (!queued.ok) throw new Error(queued.problem.detail);
  jobs["queued"] = queued.answer.body.job.id;
  await submit("held", "running", "king", { script: "echo held", hold: true });
}

/** Jobs whose runner has stopped listening: before its first heartbeat, at a cancel, and with its result. */
async function fillRuns() {
  await work("mute", (path) => path === "heartbeat");
  const assigned = await submit("assigned", "assigned", "mute", { script: "true" });
  await peer.until(assigned, ({ job }) => job.state === "assigned" && assignments[job.id] !== undefined);
  await work("deaf", (path, count) => path === "heartbeat" && count > 1);
  const timeouts = { graceMs: 600_000 };
  const cancelling = await submit("cancelling", "cancelling", "deaf", { script: "sleep 600", timeouts });
  await peer.until(cancelling, ({ job }) => job.state === "running");
  await peer.cancel(cancelling);
  await work("late", (path) => path === "result");
  await submit("late", "late", "late", { script: "echo late" });
  while (filesOf("late", "spool").length === 0 || !filesOf("late", "journal").includes("poll.json")) await pause(50);
}

/** Jobs that wait: for a runner, for quiet, and one of which the namespace was not told yet; and settings. */
async function fillQueues() {
  const ticket = await submit("ticket", "queued", "later", { script: "echo ticket" });
  await peer.until(ticket, ({ job }) => job.waiting?.reason === "no-runner");
  const debounce = { quietMs: 60_000, maxMs: 120_000 };
  await submit("debounced", "debounced", "later", { script: "echo quiet", debounce });
  const rule = { name: "ci", refs: ["refs/heads/**"], deployment: "app-{branch}", ...shell("true") };
  const put = await protocol.call(peer.client, protocol.putTriggers, {
    params: { ns: peer.ns },
    body: { triggers: [rule], hooks: [] },
    headers: { "if-match": '"v0"' },
  });
  if (!put.ok) throw new Error(put.problem.detail);
  // The namespace has been told everything but what comes now.
  await pause(1_000);
  await submit("untold", "untold", "later", { script: "echo untold" });
}

/**
 * The records that a runner keeps.
 *
 * @param {string} name
 * @param {string} kind
 */
function filesOf(name, kind) {
  return readdirSync(join(scratch, name, kind)).filter((file) => file.endsWith(".json"));
}

/** @param {number} recordedAt */
function keep(recordedAt) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const { kind, file } of databasesOf(stateDir, "recorded")) {
    const name = nameOf(kind, file);
    if (name !== null) writeFileSync(join(folder, `${name}.sql`), dumpOf(file));
  }
  const seeds = Object.fromEntries(
    runners.map((name) => {
      const key = createPrivateKey(readFileSync(join(scratch, name, "key.pem")));
      return [name, key.export({ type: "pkcs8", format: "der" }).subarray(-32).toString("hex")];
    }),
  );
  const about = { recordedAt, namespace: peer.ns, token: peer.token, jobs, idempotency, seeds, assignments };
  writeFileSync(join(folder, "about.json"), `${JSON.stringify(about, null, 2)}\n`);
  for (const kind of ["journal", "spool"]) {
    mkdirSync(join(folder, "runner", kind), { recursive: true });
    for (const name of runners)
      for (const file of filesOf(name, kind)) {
        const text = readFileSync(join(scratch, name, kind, file), "utf8");
        writeFileSync(join(folder, "runner", kind, file), `${text.replaceAll(scratch, "/var/lib/plumule")}\n`);
      }
  }
}

/**
 * What a database is kept as; null for the directory of namespaces.
 *
 * @param {"deployment" | "pool" | "namespace"} kind
 * @param {string} file
 */
function nameOf(kind, file) {
  if (kind === "pool") return kind;
  const read =
    kind === "deployment"
      ? "SELECT record ->> 'deployment' AS name FROM lane"
      : "SELECT 'namespace' AS name FROM namespace";
  const [row] = withDatabase(file, (database) => database.prepare(read).all());
  if (row === undefined) return null;
  return kind === "deployment" ? `deployment-${String(row["name"])}` : String(row["name"]);
}
