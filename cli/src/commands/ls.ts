import {
  type DeliveryView,
  DEPLOYMENT_STATES,
  type DeploymentView,
  getCommitRuns,
  getQueue,
  JOB_STATES,
  type JobView,
  LIMITS,
  listDeliveries,
  listDeployments,
  listJobs,
  type QueueView,
  waitingSchema,
} from "@plumule/protocol";
import { Argument, Command } from "commander";
import { byNode, byNodeTable, runsAtBroker, runsInCobs } from "../by-node.ts";
import { findCommit } from "../checkout.ts";
import type { Connection } from "../connection.ts";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure, misuse } from "../failure.ts";
import { wholeNumber } from "../flags.ts";
import { ageOf, becameText, fit, paint, paintState, shortId, shortKey, tableLines } from "../print.ts";
import { inLine } from "../terminal-text.ts";
import { fleet } from "./runner-fleet.ts";

type ListFlags = {
  state?: string;
  commit?: string;
  deployment?: string;
  limit: number;
  pool?: string;
  byNode?: true;
  cobs?: true;
};
/** What a job is about gets so many places; `plumule why` tells the rest. */
const ABOUT_COLUMNS = 60;
const THINGS = ["jobs", "deployments", "runs", "queue", "runners", "deliveries"] as const;

/** `plumule ls`: lists, newest first. */
export function lsCommand(): Command {
  return new Command("ls")
    .summary("list jobs, deployments, runs, the queue, runners or deliveries")
    .addArgument(new Argument("[what]", "what to list").choices([...THINGS]).default("jobs"))
    .option("--state <state>", "only jobs or deployments in this state")
    .option("--commit <commit>", "only jobs or runs of this commit, by any name that git knows here")
    .option("--deployment <name>", "only jobs of this deployment")
    .option("--pool <name>", "the queue of this pool")
    .option("--by-node", "with --commit: how the runs of each node stand, and its latest, as in Radicle's job COBs")
    .option("--cobs", "with --by-node: read the job COBs of the node on this machine, with rad-job, and ask no broker")
    .option("--limit <count>", `at most so many, up to ${LIMITS.listPage}`, wholeNumber(1), 20)
    .action(act(list));
}

async function list(context: Context, what: (typeof THINGS)[number], flags: ListFlags): Promise<ExitCode | Failure> {
  const { terminal, cwd, connect } = context;
  const commit = flags.commit === undefined ? undefined : await findCommit(cwd, flags.commit);
  if (commit === null) return misuse(`git knows no commit ${flags.commit}`, "Give the full commit id.");
  if (flags.cobs === true && flags.byNode !== true) return misuse("--cobs is for --by-node", "Add --by-node.");
  const listed = flags.byNode === true ? await nodes(context, commit, flags) : await listAtBroker();
  if (isFailure(listed)) return listed;
  if (terminal.json) for (const item of listed.items) terminal.data(item);
  else if (listed.items.length === 0) terminal.note(`${listed.empty}  ${paint.quiet(`→ ${listed.next}`)}`);
  else {
    for (const line of listed.lines) terminal.out(line);
    if (listed.more) terminal.note(paint.quiet(`there are more: --limit up to ${LIMITS.listPage}`));
  }
  return EXIT.ok;

  async function listAtBroker(): Promise<Listed | Failure> {
    const connection = await connect();
    if (isFailure(connection)) return connection;
    const lister = { jobs, deployments, runs, queue, runners: fleet, deliveries }[what];
    return lister(connection, { ...flags, limit: Math.min(flags.limit, LIMITS.listPage), commit: commit ?? undefined });
  }
}

async function nodes(context: Context, commit: string | undefined, { cobs }: ListFlags): Promise<Listed | Failure> {
  if (commit === undefined) return misuse("Of which commit?", "Name it: plumule ls --commit HEAD --by-node.");
  const connection = cobs === true ? null : await context.connect();
  if (isFailure(connection)) return connection;
  const found = connection === null ? await runsInCobs(context, commit) : await runsAtBroker(connection, commit);
  if (isFailure(found)) return found;
  const items = byNode(found);
  const lines = byNodeTable(items, Date.now());
  const empty = `no run of ${commit.slice(0, 12)}`;
  return { items, lines, more: false, empty, next: "plumule submit --commit HEAD" };
}

/** A list: what a program gets, what people see, and what to do when it is empty. */
export type Listed = { items: readonly unknown[]; lines: string[]; more: boolean; empty: string; next: string };
/** The flags of a list with the commit by its full id. */
export type ListQuery = Omit<ListFlags, "commit"> & { commit: string | undefined };

async function jobs(
  connection: Connection,
  { state, commit, deployment, limit }: ListQuery,
): Promise<Listed | Failure> {
  const known = oneOf(state, JOB_STATES);
  if (isFailure(known)) return known;
  const query = { limit, ...given({ state: known, commit, deployment }) };
  const answer = await connection.ask(listJobs, { params: { ns: connection.ns }, query });
  if (isFailure(answer)) return answer;
  const { items, nextCursor } = answer.body;
  const next = "plumule submit DEPLOYMENT --shell 'echo hello'";
  const isFiltered = [state, commit, deployment].some((value) => value !== undefined);
  const empty = isFiltered ? "no job is like that" : "no job yet";
  return { items, lines: jobTable(items, Date.now()), more: nextCursor !== null, empty, next };
}

/** Jobs as a table. */
export function jobTable(items: readonly JobView[], now: number): string[] {
  const rows = items.map((job) => [
    paint.strong(shortId(job.id)),
    inLine(job.deployment),
    paintState(job.state, job.state === "running" ? (job.phase ?? job.state) : job.state),
    job.source === null ? "" : paint.quiet(job.source.commit.slice(0, 8)),
    ageOf(job.createdAt, now),
    fit(inLine(aboutOf(job)), ABOUT_COLUMNS),
  ]);
  return tableLines(["JOB", "DEPLOYMENT", "STATE", "COMMIT", "AGE", "ABOUT"], rows);
}

async function deployments(connection: Connection, { state, limit }: ListQuery): Promise<Listed | Failure> {
  const known = oneOf(state, DEPLOYMENT_STATES);
  if (isFailure(known)) return known;
  const query = { limit, ...given({ state: known }) };
  const answer = await connection.ask(listDeployments, { params: { ns: connection.ns }, query });
  if (isFailure(answer)) return answer;
  const { items, nextCursor } = answer.body;
  const lines = deploymentTable(items, Date.now());
  return {
    items,
    lines,
    more: nextCursor !== null,
    empty: state === undefined ? "no deployment yet" : "no deployment is like that",
    next: "plumule submit DEPLOYMENT",
  };
}

/** What a job is about, in a line; whose schedule made it comes first, because otherwise it says the same as the push that it repeats. */
function aboutOf({ schedule, step, stepCount, summary, reason, waiting }: JobView): string {
  const became = stepCount === undefined ? undefined : becameText(stepCount);
  const about = summary ?? reason?.detail ?? waiting?.detail ?? became;
  return [schedule?.name, step?.name, about].filter((part) => part !== undefined).join(": ");
}

/** Deployments as a table. */
export function deploymentTable(items: readonly DeploymentView[], now: number): string[] {
  const rows = items.map(({ id, state, revision, pendingCount, lastResult, updatedAt }) => [
    paint.strong(inLine(id)),
    state,
    `r${revision}`,
    String(pendingCount),
    lastResult === null ? "" : `${paintState(lastResult.state)} ${paint.quiet(shortId(lastResult.job))}`,
    ageOf(updatedAt, now),
  ]);
  return tableLines(["DEPLOYMENT", "STATE", "REVISION", "PENDING", "LAST RESULT", "CHANGED"], rows);
}

async function runs(connection: Connection, { commit }: ListQuery): Promise<Listed | Failure> {
  if (commit === undefined) return misuse("Of which commit?", "Name it: plumule ls runs --commit HEAD.");
  const answer = await connection.ask(getCommitRuns, { params: { ns: connection.ns, commit }, query: {} });
  if (isFailure(answer)) return answer;
  const { items } = answer.body;
  const rows = items.map(({ job, run, node, status }) => [
    run === null ? "" : paint.strong(run),
    node === null ? "" : shortKey(node),
    status === "started" ? paint.busy(status) : paintState(status),
    inLine(job.deployment),
  ]);
  const lines = tableLines(["RUN", "RUNNER", "STATUS", "DEPLOYMENT"], rows);
  return { items, lines, more: false, empty: `no run of ${commit.slice(0, 12)}`, next: "plumule submit --commit HEAD" };
}

async function queue(connection: Connection, { pool, limit }: ListQuery): Promise<Listed | Failure> {
  const query = { limit, ...given({ pool }) };
  const answer = await connection.ask(getQueue, { params: { ns: connection.ns }, query });
  if (isFailure(answer)) return answer;
  const { tickets, ticketCount, parkedCount } = answer.body;
  const empty = `nothing waits in the pool; ${parkedCount} ${parkedCount === 1 ? "runner waits" : "runners wait"} for work`;
  const lines = queueTable(answer.body, Date.now());
  return { items: tickets, lines, more: tickets.length < ticketCount, empty, next: "plumule ls runners" };
}

/** A pool's tickets as a table, in the order in which they are given out. */
export function queueTable({ tickets }: QueueView, now: number): string[] {
  const rows = tickets.map(({ job, deployment, priority, queuedAt, waiting }) => {
    const why = waitingSchema.safeParse(waiting);
    return [
      paint.strong(shortId(job)),
      inLine(deployment),
      inLine(priority),
      ageOf(queuedAt, now),
      why.success ? inLine(why.data.detail) : "",
    ];
  });
  return tableLines(["JOB", "DEPLOYMENT", "PRIORITY", "WAITS", "WHY"], rows);
}

async function deliveries(connection: Connection, { limit }: ListQuery): Promise<Listed | Failure> {
  const answer = await connection.ask(listDeliveries, { params: { ns: connection.ns }, query: { limit } });
  if (isFailure(answer)) return answer;
  const { items, nextCursor } = answer.body;
  const lines = deliveryTable(items, Date.now());
  return { items, lines, more: nextCursor !== null, empty: "no webhook came in yet", next: "plumule ls jobs" };
}

/** Webhooks as a table: one row for each rule that had something to say about it. */
export function deliveryTable(items: readonly DeliveryView[], now: number): string[] {
  const rows = items.flatMap(({ id, state, ref, after, receivedAt, results }) =>
    (results.length === 0 ? [null] : results).map((result) => [
      shortId(id),
      ageOf(receivedAt, now),
      inLine(ref ?? ""),
      paint.quiet(after?.slice(0, 8) ?? ""),
      state === "failed" ? paint.bad(state) : state,
      inLine(result?.trigger ?? ""),
      result?.job == null
        ? inLine(result?.detail ?? "")
        : `${paint.strong(shortId(result.job))} in ${result.deployment}`,
    ]),
  );
  return tableLines(["DELIVERY", "AGE", "REF", "COMMIT", "STATE", "TRIGGER", "JOB, OR WHY NONE"], rows);
}

function oneOf<T extends string>(state: string | undefined, states: readonly T[]): T | undefined | Failure {
  if (state === undefined || (states as readonly string[]).includes(state)) return state as T | undefined;
  return misuse(`${state} is no such state`, `One of: ${states.join(", ")}.`);
}

function given<T extends Record<string, unknown>>(query: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(query).filter(([, value]) => value !== undefined)) as never;
}
