import { getDerivations, type Derivation, isFinalJobState, type JobDetail } from "@plumule/protocol";
import { Command } from "commander";
import type { Connection } from "../connection.ts";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure } from "../failure.ts";
import { createLogPrinter, offsetOfLastLines, readLog } from "../log-reading.ts";
import { clockOf, detailLines, paint, shortId, shortKey, type Terminal } from "../print.ts";
import { resolveJob } from "../resolve.ts";
import { inLine } from "../terminal-text.ts";
import { endLine, hintFor } from "../watch-render.ts";
import { needsText } from "./get.ts";

/** Lines of the log that are shown of a job that ended badly. */
const LAST_LINES = 15;

/** `plumule why`: why a job waits, or why it ended as it did. */
export function whyCommand(): Command {
  return new Command("why")
    .summary("say why a job waits, or why it failed")
    .argument("[id]", "job, run, deployment or commit; by default the job of HEAD")
    .action(act(why));
}

async function why({ terminal, cwd, connect }: Context, id: string | undefined): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const found = await resolveJob(connection, id, cwd);
  if (isFailure(found)) return found;
  const { job } = found;
  const broken = isFinalJobState(job.state) ? await brokenDerivations(connection, job.id) : [];
  if (isFailure(broken)) return broken;
  if (terminal.json) {
    const { state, phase, waiting, reason } = job;
    terminal.data({ job: job.id, state, phase, waiting, reason, derivations: broken });
    return EXIT.ok;
  }
  for (const line of isFinalJobState(job.state) ? endedLines(found, broken) : waitingLines(found)) terminal.out(line);
  if (job.state === "failed" && job.run !== null) await showEnd(connection, terminal, job.run);
  terminal.note(paint.quiet(`→ ${job.state === "failed" ? `plumule logs ${shortId(job.id)}` : hintFor(job)}`));
  return EXIT.ok;
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
