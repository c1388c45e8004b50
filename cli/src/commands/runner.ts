import { createRegistration, DRAIN_ENDS, type DrainBody, LIMITS } from "@plumule/protocol";
import { Command, InvalidArgumentError, Option } from "commander";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure } from "../failure.ts";
import { paint } from "../print.ts";
import { configCommand } from "./runner-config.ts";
import { doctorCommand } from "./doctor.ts";
import { durationOf } from "../times.ts";
import { execCommand } from "./runner-exec.ts";
import { installServiceCommand } from "./install-service.ts";
import { fleet, setDrained } from "./runner-fleet.ts";
import { startCommand } from "./runner-start.ts";

/** `plumule runner`: machines that do the work. */
export function runnerCommand(): Command {
  const list = new Command("ls").summary("list the fleet").action(act(listFleet));
  const drain = new Command("drain")
    .summary("give a runner no new work")
    .argument("<runner>", "name, did:key or the beginning of it")
    .option("--note <text>", "why, as the fleet and the runner show it")
    .option("--deadline <time>", "runs that are at work after it go back to the queue: 90s, 30m, 2h", drainTime)
    .addOption(
      new Option("--then <end>", "what the runner does without runs: wait for work again, or exit").choices(DRAIN_ENDS),
    )
    .action(act((context: Context, which: string, flags: DrainFlags) => setDrained(context, which, drainOf(flags))));
  const undrain = new Command("undrain")
    .summary("give a runner work again")
    .argument("<runner>", "name, did:key or the beginning of it")
    .action(act((context: Context, which: string) => setDrained(context, which, null)));
  const token = new Command("token")
    .summary("make a one-time token with which one runner may register")
    .option("--pool <name>", "pool that the runner works for", "default")
    .action(act(makeToken));
  const runner = new Command("runner").summary("start and look after runners");
  for (const command of [
    startCommand(),
    configCommand(),
    doctorCommand(),
    installServiceCommand(),
    execCommand(),
    list,
    drain,
    undrain,
    token,
  ])
    runner.addCommand(command);
  return runner;
}

type DrainFlags = { note?: string; deadline?: number; then?: DrainBody["end"] };

function drainOf({ note, deadline, then: end }: DrainFlags): DrainBody {
  return { note, deadlineMs: deadline, end };
}

function drainTime(text: string): number {
  const ms = durationOf(text);
  if (ms === null || ms > LIMITS.drainMaxMs) throw new InvalidArgumentError("Give it as 90s, 30m or 2h, up to 48h.");
  return ms;
}

async function listFleet({ terminal, connect }: Context): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const listed = await fleet(connection, { limit: 200 });
  if (isFailure(listed)) return listed;
  if (terminal.json) for (const item of listed.items) terminal.data(item);
  else if (listed.items.length === 0) terminal.note(`${listed.empty}  ${paint.quiet(`→ ${listed.next}`)}`);
  else for (const line of listed.lines) terminal.out(line);
  return EXIT.ok;
}

async function makeToken({ terminal, connect }: Context, { pool }: { pool: string }): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const answer = await connection.ask(createRegistration, { params: { ns: connection.ns }, body: { pool } });
  if (isFailure(answer)) return answer;
  if (terminal.json) terminal.data(answer.body);
  else {
    const { url, namespace } = connection.place;
    terminal.out(answer.body.token);
    terminal.note(
      `${paint.good("✓")} good for one runner, until ${answer.body.expiresAt}  ${paint.quiet(`→ plumule runner start --url ${url} --namespace ${namespace} --registration TOKEN`)}`,
    );
  }
  return EXIT.ok;
}
