import { type ClientDeps, didKeyOf, type ExecCall, type RunnerOrder } from "@plumule/protocol";
import { Admission } from "./admission/admission.ts";
import { openHistory } from "./admission/history.ts";
import { memoryOfTrees } from "./admission/measure.ts";
import { type RunnerConfig, runnerConfigSchema, runnerFolders, type RunnerOptions } from "./config.ts";
import { examineBriefly } from "./doctor/examine.ts";
import { RUNNER_EXIT, type StartRefusal } from "./exit-codes.ts";
import { newCounters } from "./health/counters.ts";
import { serveHealth } from "./health/server.ts";
import { openJournal } from "./journal.ts";
import { openKeptOf } from "./kept.ts";
import { localAddress } from "./local-address.ts";
import { Loop, type RunningRunner } from "./loop.ts";
import { probeMachine } from "./machine.ts";
import {
  type JournalRecord,
  journalRecordSchema,
  recordReader,
  type SpoolRecord,
  spoolRecordSchema,
} from "./records.ts";
import { openSigner, register } from "./register.ts";
import { SPOOL_BYTES } from "./room.ts";
import { openIdentity, signedRecipient } from "./secrets/identity.ts";
import { openSpool } from "./spool.ts";
import { openGivers } from "./standalone/open.ts";
import { lockState, type StateLock } from "./state-lock.ts";
import { openSupervisors } from "./supervisors.ts";

/** What the caller of a runner provides. `say` gets lines for people. */
export type RunnerEnvironment = { fetch: ClientDeps["fetch"]; say: (line: string) => void };

/** Starts a runner: key, registration, machine, what an earlier process left behind, then the poll loop. A refusal says what to do. */
export async function startRunner(
  options: RunnerOptions,
  environment: RunnerEnvironment,
): Promise<RunningRunner | StartRefusal> {
  const parsed = runnerConfigSchema.safeParse(options);
  if (!parsed.success)
    return misconfigured(parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`).join("; "));
  // Two runners on one journal would both follow its runs.
  const lock = await lockState(parsed.data.state);
  if ("refused" in lock) return { ...lock, exit: RUNNER_EXIT.conflict };
  const started = await open(parsed.data, environment, lock);
  if ("refused" in started) await lock.release();
  return started;
}

async function open(
  config: RunnerConfig,
  { fetch, say }: RunnerEnvironment,
  lock: StateLock,
): Promise<RunningRunner | StartRefusal> {
  const folders = runnerFolders(config);
  const opened = await openSigner(config, folders);
  if ("refused" in opened) return misconfigured(opened.refused);
  const runner = didKeyOf(opened.signer.publicKey);
  const unregistered = await register(config, opened, fetch);
  // Whoever follows a repository has work without a broker.
  if (unregistered?.exit === RUNNER_EXIT.tryAgain && config.follow.length > 0) say(unregistered.refused);
  else if (unregistered !== null) return unregistered;
  const identity = await openIdentity(folders.secrets.identity);
  if ("refused" in identity) return misconfigured(identity.refused);
  const recipient = await signedRecipient(identity, opened.signer);
  const probed = await probeMachine(config, opened.signer, runner);
  if ("refused" in probed) return misconfigured(probed.refused);
  const counters = newCounters();
  let started: Loop | null = null;
  const obey = (order: RunnerOrder): void => started?.obey(order);
  const called = (call: ExecCall): void => started?.called(call);
  const journal = await openJournal<JournalRecord>(folders.journal, recordReader(journalRecordSchema));
  const readSpool = recordReader(spoolRecordSchema);
  const spool = await openSpool<SpoolRecord>(folders.spool, readSpool, SPOOL_BYTES, ({ result }) => result.log.bytes);
  for (const path of [...journal.setAside, ...spool.setAside]) say(`set aside a record that cannot be read: ${path}`);
  const connection = { signer: opened.signer, fetch, obey, called };
  const givers = await openGivers(config, folders, { connection, counters, journal, spool, say });
  const supervisors = openSupervisors(folders.cache, probed.machine.overlay);
  const history = await openHistory(folders.history);
  // What Node counts as available respects the limit of a cgroup, where one has a memory controller.
  const available = (): number => process.availableMemory();
  const admission = new Admission({ history, measure: memoryOfTrees, available, say });
  // Of use to whoever starts it, and nothing to wait for.
  void examineBriefly(config, fetch).then((checks) => {
    for (const { name, standing, found, fix } of checks)
      if (standing !== "good") say(`${name}: ${found}. ${fix ?? ""}`);
  });
  const deps = {
    config,
    folders,
    machine: probed.machine,
    ...givers,
    journal,
    spool,
    supervisors,
    kept: await openKeptOf(config, folders),
    admission,
    say,
    lock,
    recipient,
    counters,
  };
  const made = new Loop(deps);
  started = made;
  const address = config.health === undefined ? null : localAddress(config.health);
  const health = address === null ? null : await serveHealth(address, () => made.status());
  if (health !== null && "refused" in health) return misconfigured(health.refused);
  say(`runner ${config.name} ${runner}`);
  const asked = config.url === undefined ? "without a broker" : `polling ${config.url} as ${config.namespace}`;
  say(`${probed.findings.join(", ")}; ${asked}`);
  return made.start(runner, health);
}

function misconfigured(refused: string): StartRefusal {
  return { refused, exit: RUNNER_EXIT.misconfigured };
}
