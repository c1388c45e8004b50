import { setTimeout as pause } from "node:timers/promises";
import {
  attemptOfRun,
  isFinalJobState,
  type JobId,
  type JobView,
  type RunId,
  type WatchState,
} from "@plumule/protocol";
import { Command } from "commander";
import type { Connection } from "../connection.ts";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure } from "../failure.ts";
import { wholeNumber } from "../flags.ts";
import { createLogPrinter, offsetOfLastLines, readLog } from "../log-reading.ts";
import { paint, shortId, shortKey, sizeOf, type Terminal } from "../print.ts";
import { resolveJob } from "../resolve.ts";

type LogFlags = { follow?: true; lines?: number; offset?: number; raw?: true };

/** What a log that is no longer written may take to arrive, ms. */
const LAST_BYTES_MS = 5_000;

/** `plumule logs`: what a run printed. */
export function logsCommand(): Command {
  return new Command("logs")
    .summary("print the log of a job")
    .description("Prints the log of a job's newest run, or of the run that is named. Control sequences are taken out.")
    .argument("[id]", "job, run, deployment or commit; by default the job of HEAD")
    .option("-f, --follow", "go on until the job has ended")
    .option("-n, --lines <count>", "begin with the last lines", wholeNumber(1))
    .option("--offset <bytes>", "begin at a byte", wholeNumber(0))
    .option("--raw", "print the bytes as they are; they may do anything to a terminal")
    .action(act(logs));
}

async function logs(
  { terminal, cwd, connect }: Context,
  id: string | undefined,
  flags: LogFlags,
): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const found = await resolveJob(connection, id, cwd);
  if (isFailure(found)) return found;
  const run = found.run ?? found.job.run;
  const follows = flags.follow === true && found.run === null && !isFinalJobState(found.job.state);
  if (run === null && !follows) return notStarted(found.job);
  const start = run === null ? 0 : await startOf(connection, run, flags);
  if (isFailure(start)) return start;
  if (follows) return followLog(connection, terminal, found.job, { run, start, raw: flags.raw === true });
  return run === null ? notStarted(found.job) : printLog(connection, terminal, run, start, flags.raw === true);
}

async function startOf(connection: Connection, run: RunId, { lines, offset }: LogFlags): Promise<number | Failure> {
  return lines === undefined ? (offset ?? 0) : offsetOfLastLines(connection, run, lines);
}

async function printLog(
  connection: Connection,
  terminal: Terminal,
  run: RunId,
  start: number,
  raw: boolean,
): Promise<ExitCode | Failure> {
  const printer = createLogPrinter(terminal, { raw, run });
  const end = await readLog(connection, run, start, printer.push);
  printer.flush();
  return isFailure(end) ? end : EXIT.ok;
}

/** Prints the log of the newest run while it is written; when another attempt begins, that one's. */
async function followLog(
  connection: Connection,
  terminal: Terminal,
  { id, deployment }: JobView,
  first: { run: RunId | null; start: number; raw: boolean },
): Promise<ExitCode | Failure> {
  const stop = new AbortController();
  let current: RunId | null = null;
  let isOpen = false;
  let isOver = false;
  const leave = (): void => stop.abort();
  process.once("SIGINT", leave);
  const follower = connection.follow(deployment, { signal: stop.signal, onState: (state) => see(state) });

  const see = (state: WatchState): void => {
    const job = state.jobs[id];
    if (job === undefined) return;
    if (job.run !== null && job.run !== current) begin(job.run, job);
    if (!isFinalJobState(job.state) || isOver) return;
    isOver = true;
    // The end of a job and the last bytes of its log come on separate ways; a log that was lost has no end.
    if (isOpen) void pause(LAST_BYTES_MS, undefined, { ref: false, signal: stop.signal }).then(leave, () => undefined);
    else leave();
  };
  const begin = (run: RunId, job: JobView): void => {
    if (current !== null || job.attempt > 1) tellAttempt(terminal, run, job);
    current = run;
    isOpen = true;
    const printer = createLogPrinter(terminal, { raw: first.raw, run });
    const close = (): void => {
      printer.flush();
      isOpen = run === current ? false : isOpen;
      if (isOver) leave();
    };
    const offset = run === first.run ? first.start : 0;
    follower.log(
      run,
      {
        onBytes: printer.push,
        onSkip: (from, to) =>
          terminal.note(
            paint.care(`… ${sizeOf(to - from)} left out here; plumule logs ${shortId(id)} --offset ${from}`),
          ),
        onEnd: close,
        onRefused(problem) {
          terminal.note(paint.care(problem.detail));
          close();
        },
      },
      { offset },
    );
  };

  const ended = await follower.done;
  process.removeListener("SIGINT", leave);
  if (ended.ended === "refused")
    return { exit: EXIT.unreachable, what: "The broker ended the stream", why: ended.detail, next: ended.next };
  if (isOver && !terminal.json) terminal.note(paint.quiet(`→ plumule get ${shortId(id)}`));
  return isOver ? EXIT.ok : EXIT.interrupted;
}

function tellAttempt(terminal: Terminal, run: RunId, { runner }: JobView): void {
  if (!terminal.json)
    terminal.note(paint.quiet(`attempt ${attemptOfRun(run)}${runner === null ? "" : ` on ${shortKey(runner)}`}`));
}

function notStarted({ id, state }: { id: JobId; state: JobView["state"] }): Failure {
  return isFinalJobState(state)
    ? {
        exit: EXIT.notFound,
        what: "There is no log",
        why: `job ${shortId(id)} ended ${state} before it ran`,
        next: `plumule why ${shortId(id)}`,
      }
    : {
        exit: EXIT.notFound,
        what: "There is no log yet",
        why: `job ${shortId(id)} is ${state}`,
        next: `Wait for it: plumule logs -f ${shortId(id)}`,
      };
}
