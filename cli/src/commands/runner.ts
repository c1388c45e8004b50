import { createRegistration } from "@plumule/protocol";
import { Command } from "commander";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure } from "../failure.ts";
import { paint } from "../print.ts";
import { configCommand } from "./runner-config.ts";
import { doctorCommand } from "./doctor.ts";
import { fleet, setDrained } from "./runner-fleet.ts";
import { startCommand } from "./runner-start.ts";

/** `plumule runner`: machines that do the work. */
export function runnerCommand(): Command {
  const list = new Command("ls").summary("list the fleet").action(act(listFleet));
  const drain = new Command("drain")
    .summary("give a runner no new work")
    .argument("<runner>", "name, did:key or the beginning of it")
    .action(act((context: Context, which: string) => setDrained(context, which, true)));
  const undrain = new Command("undrain")
    .summary("give a runner work again")
    .argument("<runner>", "name, did:key or the beginning of it")
    .action(act((context: Context, which: string) => setDrained(context, which, false)));
  const token = new Command("token")
    .summary("make a one-time token with which one runner may register")
    .option("--pool <name>", "pool that the runner works for", "default")
    .action(act(makeToken));
  const runner = new Command("runner").summary("start and look after runners");
  for (const command of [startCommand(), configCommand(), doctorCommand(), list, drain, undrain, token])
    runner.addCommand(command);
  return runner;
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
