import { type DeploymentView, type ScheduleView, setSchedule } from "@plumule/protocol";
import { Command } from "commander";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure } from "../failure.ts";
import { agoOf, paint, printDone, shortId, tableLines } from "../print.ts";
import { inLine } from "../terminal-text.ts";

/** `plumule schedule`: stops what the clock asks for, and lets it go on. */
export function scheduleCommand(): Command {
  const command = new Command("schedule")
    .summary("pause and resume the schedules of task files")
    .description(
      "A deployment has the schedules that stand in the task file of its newest good commit: `plumule get DEPLOYMENT` shows them, `plumule submit --schedule` runs one now.",
    );
  const verb = (name: string, summary: string, paused: boolean): Command =>
    new Command(name)
      .summary(summary)
      .description(`${summary}.`)
      .argument("<deployment>", "name of the deployment")
      .argument("<name>", "name of the schedule; on all branches")
      .action(
        act((context: Context, deployment: string, schedule: string) => set(context, deployment, schedule, paused)),
      );
  return command
    .addCommand(verb("pause", "make no further jobs of a schedule, whatever is pushed", true))
    .addCommand(verb("resume", "let a schedule make jobs again, from now on", false));
}

async function set(
  { terminal, connect }: Context,
  deployment: string,
  schedule: string,
  paused: boolean,
): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const answer = await connection.ask(setSchedule, {
    params: { ns: connection.ns, deployment, schedule },
    body: { paused },
  });
  if (isFailure(answer)) return answer;
  const line = `${inLine(schedule)} ${paused ? "is paused" : `fires next at ${nextText(answer.body, schedule)}`}`;
  printDone(terminal, { line, next: `plumule get ${inLine(deployment)}`, id: deployment, answer: answer.body });
  return EXIT.ok;
}

function nextText({ schedules = [] }: DeploymentView, name: string): string {
  const times = schedules.flatMap((one) => (one.name === name && one.nextAt !== null ? [one.nextAt] : []));
  return times.toSorted()[0] ?? "no time";
}

/** Schedules of a deployment as a table. */
export function scheduleTable(schedules: readonly ScheduleView[], now: number): string[] {
  const rows = schedules.map(({ name, cron, ref, nextAt, last }) => [
    paint.strong(inLine(name)),
    inLine(cron),
    inLine(ref.replace(/^refs\/heads\//, "")),
    nextAt ?? paint.care("paused"),
    last === null ? "" : `${last.job === null ? paint.care("no job") : shortId(last.job)} ${agoOf(last.at, now)}`,
    inLine(last?.detail ?? ""),
  ]);
  return tableLines(["SCHEDULE", "CRON", "BRANCH", "NEXT", "LAST", ""], rows);
}
