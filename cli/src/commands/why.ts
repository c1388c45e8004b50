import {
  getDerivations,
  type Derivation,
  isFinalJobState,
  type JobDetail,
  type JobMatch,
  lacksOf,
  type MatchCheck,
  matchJob,
} from "@plumule/protocol";
import { Command } from "commander";
import type { Connection } from "../connection.ts";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure } from "../failure.ts";
import { createLogPrinter, offsetOfLastLines, readLog } from "../log-reading.ts";
import { clockOf, detailLines, paint, shortId, shortKey, tableLines, type Terminal } from "../print.ts";
import { resolveJob } from "../resolve.ts";
import { inLine } from "../terminal-text.ts";
import { endLine, hintFor } from "../watch-render.ts";
import { needsText } from "./get.ts";
import { findRunner } from "./runner-fleet.ts";

/** Runners that are told of beside a job that waits. */
const NEAREST = 5;
/** Lines of the log that are shown of a job that ended badly. */
const LAST_LINES = 15;

/** `plumule why`: why a job waits, or why it ended as it did. */
export function whyCommand(): Command {
  return new Command("why")
    .summary("say why a job waits, or why it failed; and what keeps a runner from it")
    .argument("[id]", "job, run, deployment or commit; by default the job of HEAD")
    .option(
      "--runner <runner>",
      "compare the job with this runner, label by label: its name, did:key or the beginning of it",
    )
    .action(act(why));
}

async function why(
  { terminal, cwd, connect }: Context,
  id: string | undefined,
  flags: { runner?: string },
): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const found = await resolveJob(connection, id, cwd);
  if (isFailure(found)) return found;
  const { job } = found;
  if (flags.runner !== undefined) return compare(connection, terminal, job, flags.runner);
  const isOver = isFinalJobState(job.state);
  const broken = isOver ? await brokenDerivations(connection, job.id) : [];
  if (isFailure(broken)) return broken;
  const match = isOver || job.waiting === null ? null : await matchOf(connection, job.id);
  if (terminal.json) {
    const { state, phase, waiting, reason } = job;
    terminal.data({ job: job.id, state, phase, waiting, reason, derivations: broken, ...match });
    return EXIT.ok;
  }
  for (const line of isOver ? endedLines(found, broken) : waitingLines(found)) terminal.out(line);
  for (const line of match === null ? [] : nearestLines(match)) terminal.out(line);
  if ((job.state === "failed" || job.phase === "setup") && job.run !== null)
    await showEnd(connection, terminal, job.run);
  const [nearest] = match?.runners ?? [];
  const next =
    nearest === undefined
      ? job.state === "failed"
        ? `plumule logs ${shortId(job.id)}`
        : hintFor(job)
      : `plumule why ${shortId(job.id)} --runner ${inLine(nearest.name)}`;
  terminal.note(paint.quiet(`→ ${next}`));
  return EXIT.ok;
}

/** A job and one runner, label by label. */
async function compare(
  connection: Connection,
  terminal: Terminal,
  { id, deployment }: JobDetail["job"],
  which: string,
): Promise<ExitCode | Failure> {
  const runner = await findRunner(connection, which);
  if (isFailure(runner)) return runner;
  const answer = await connection.ask(matchJob, { params: { ns: connection.ns, job: id }, query: { runner } });
  if (isFailure(answer)) return answer;
  if (terminal.json) terminal.data(answer.body);
  else {
    terminal.out(`job ${paint.strong(shortId(id))} in ${inLine(deployment)}`);
    for (const line of comparisonLines(answer.body)) terminal.out(line);
  }
  return EXIT.ok;
}

/** The runners beside a job; null where the caller may not see them, or an older broker does not tell. */
async function matchOf(connection: Connection, job: string): Promise<JobMatch | null> {
  const answer = await connection.ask(matchJob, { params: { ns: connection.ns, job }, query: { limit: NEAREST } });
  return isFailure(answer) ? null : answer.body;
}

/** The nearest runners with what each lacks, a line each. */
export function nearestLines({ runners }: JobMatch): string[] {
  const rows = runners.map((match) => [
    `  ${paint.strong(inLine(match.name))}`,
    match.ok ? paint.good("can take it") : `lacks ${inLine(lacksOf(match).join(", "))}`,
  ]);
  return runners.length === 0 ? [] : tableLines(["  RUNNER", ""], rows);
}

/** A job and a runner, a line for each thing that decides whether they meet. */
export function comparisonLines({ checks, runners: [match] }: JobMatch): string[] {
  if (match === undefined) return [];
  const all = [...checks, ...match.checks];
  const [able, free] = [match.ok, checks.every(({ ok }) => ok)];
  const end = able
    ? free
      ? `${inLine(match.name)} can take it: it is given to the first runner that asks for work.`
      : `${inLine(match.name)} could take it; the job itself is not ready.`
    : `${inLine(match.name)} cannot take it.`;
  const next = all
    .filter(({ ok }) => !ok)
    .flatMap(({ name, next: fix }) => (fix === undefined ? [] : [`  ${name}: ${inLine(fix)}`]));
  return [
    ...tableLines(["", "WHAT", "NEEDED", `${inLine(match.name).toUpperCase()} HAS`], all.map(checkRow)),
    end,
    ...next,
  ];
}

function checkRow({ name, needed, has, ok }: MatchCheck): string[] {
  return [ok ? paint.good("✓") : paint.bad("✗"), name, inLine(needed), inLine(has)];
}

/** Why a job has not ended: what it waits for, what it needs, and the runner that comes nearest. */
export function waitingLines({ job }: JobDetail): string[] {
  const { waiting } = job;
  const head = `job ${paint.strong(shortId(job.id))} in ${inLine(job.deployment)} is ${job.state === "running" ? (job.phase ?? job.state) : job.state}`;
  if (waiting === null) return [head];
  const { nearest } = waiting;
  return [
    `${head}: ${inLine(waiting.detail)}`,
    ...detailLines([
      ["needs", needsText(waiting.needs)],
      ["nearest", nearest === null ? null : `${shortKey(nearest.runner)} lacks ${inLine(nearest.lacks.join(", "))}`],
      ["position", waiting.position === 0 ? null : String(waiting.position)],
      ["eta", waiting.etaMs === null ? null : clockOf(waiting.etaMs)],
    ]).map((line) => `  ${line}`),
  ];
}

/** Why a job ended as it did, with the derivations that broke it. */
export function endedLines({ job, runs }: JobDetail, broken: readonly Derivation[]): string[] {
  const lost = runs
    .filter((run) => run.state === "lost")
    .map((run) => `run ${run.attempt} on ${shortKey(run.runner)} was lost`);
  const failed = broken.map(
    ({ name, state, reason }) => `${paint.bad(state)}  ${inLine(name)}${reason == null ? "" : `  ${inLine(reason)}`}`,
  );
  return [endLine(job), ...[...lost, ...failed].map((line) => `  ${line}`)];
}

async function brokenDerivations(connection: Connection, job: string): Promise<Derivation[] | Failure> {
  const answer = await connection.ask(getDerivations, { params: { ns: connection.ns, job } });
  if (isFailure(answer)) return answer.exit === EXIT.notFound ? [] : answer;
  const fine: readonly Derivation["state"][] = [
    "planned",
    "built",
    "cached",
    "substituted",
    "dependency-failed",
    "cancelled",
  ];
  return answer.body.nodes.filter(({ state }) => !fine.includes(state));
}

async function showEnd(connection: Connection, terminal: Terminal, run: string): Promise<void> {
  const start = await offsetOfLastLines(connection, run, LAST_LINES);
  if (isFailure(start)) return terminal.note(paint.quiet(start.why ?? start.what));
  terminal.out(paint.quiet(`  the last ${LAST_LINES} lines of the log:`));
  const printer = createLogPrinter(terminal, { raw: false, run });
  await readLog(connection, run, start, printer.push);
  printer.flush();
}
