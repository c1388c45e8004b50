import { Command } from "commander";
import { act, type Context } from "../context.ts";
import { type ExitCode, exitOfWhole } from "../exit-codes.ts";
import { type Failure, isFailure } from "../failure.ts";
import { wholeNumber } from "../flags.ts";
import { paint } from "../print.ts";
import { resolveJob, resolveTarget } from "../resolve.ts";
import { endLine, hintForWhole, lastLines, stepLines } from "../watch-render.ts";
import { watch } from "../watching.ts";
import { isFinalJobState, wholeState } from "@plumule/protocol";

/** `plumule watch`: a job, or a lane, live. */
export function watchCommand(): Command {
  return new Command("watch")
    .summary("follow a job or a deployment, live")
    .description(
      "Shows every change until the job has ended, and ends with its result. Of a deployment it follows every job until none is left. Ctrl-C lets go; the job goes on.",
    )
    .argument("[id]", "job, deployment or commit; by default the job of HEAD")
    .option("--timeout <seconds>", "at most so long", wholeNumber(1))
    .action(act(run));
}

async function run(
  { terminal, cwd, connect }: Context,
  id: string | undefined,
  flags: { timeout?: number },
): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const timeoutMs = flags.timeout === undefined ? undefined : flags.timeout * 1000;
  const target = id === undefined ? null : await resolveTarget(connection, id, cwd);
  if (isFailure(target)) return target;
  if (target?.kind === "deployment") return watch(connection, terminal, { deployment: target.deployment, timeoutMs });
  const found = await resolveJob(
    connection,
    target === null ? undefined : target.kind === "commit" ? target.commit : target.job,
    cwd,
  );
  if (isFailure(found)) return found;
  const { job, steps = [] } = found;
  if (!isFinalJobState(job.state) || !isFinalJobState(wholeState(job, steps)))
    return watch(connection, terminal, { deployment: job.deployment, job, timeoutMs });
  // A lane's snapshot holds its newest jobs only; this one may be older than that.
  if (terminal.json) terminal.data({ type: "end", job, exitCode: exitOfWhole(job, steps) });
  else {
    for (const line of [endLine(job), ...lastLines(job), ...stepLines(steps)]) terminal.out(line);
    terminal.note(paint.quiet(`→ ${hintForWhole(job, steps)}`));
  }
  return exitOfWhole(job, steps);
}
