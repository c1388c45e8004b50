import { describeCondition, listSecrets, putSecret, removeSecret, type SecretView } from "@plumule/protocol";
import { Command } from "commander";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure, misuse } from "../failure.ts";
import { collect } from "../flags.ts";
import { ageOf, paint, printDone, tableLines } from "../print.ts";
import { chooseRunners, sealAll, sealedLine, unpinnedAdvice } from "../sealing.ts";
import { readCondition, readSecrets } from "../secret-input.ts";
import { inLine } from "../terminal-text.ts";
import { timeOf } from "../times.ts";

/** `plumule secret`: sealed secrets that a namespace keeps for its jobs. */
export function secretCommand(): Command {
  const set = new Command("set")
    .summary("seal a secret to runners and store the box")
    .description(
      "Seals a secret on this machine, so that only the runners can open it, and stores the sealed box. A runner gives it to a job only where the condition holds.",
    )
    .argument("<name=@file>", "its name, and the file that holds it; NAME=- reads standard input")
    .option(
      "--runner <key>",
      "a runner that may open it, by did:key or pinned name; may be repeated (default: all)",
      collect,
    )
    .option("--if <condition>", "repository=, branch=, delegate= or deployment=; all that are given must hold", collect)
    .option("--until <time>", "when it ends: days such as 90d, or an RFC 3339 time")
    .action(act(store));
  const list = new Command("ls").summary("list stored secrets: names, runners and conditions").action(act(show));
  const remove = new Command("rm").summary("forget a stored secret").argument("<name>").action(act(forget));
  const secret = new Command("secret").summary("store, list and forget sealed secrets");
  for (const command of [set, list, remove]) secret.addCommand(command);
  return secret;
}

async function store(
  { terminal, cwd, env, connect }: Context,
  input: string,
  flags: { runner?: string[]; if?: string[]; until?: string },
): Promise<ExitCode | Failure> {
  const secrets = await readSecrets([input], cwd);
  if (isFailure(secrets)) return secrets;
  const [secret] = secrets;
  if (secret?.value == null) return misuse("No value is given", `Name a file: \`plumule secret set ${input}=@FILE\`.`);
  const condition = await readCondition(flags.if ?? [], cwd);
  if (isFailure(condition)) return condition;
  const expiresAt = flags.until === undefined ? null : timeOf(flags.until, Date.now());
  if (flags.until !== undefined && expiresAt === null)
    return misuse(`${flags.until} is no time`, "Give days such as 90d, or a time such as 2027-01-31T00:00:00Z.");
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const named = flags.runner ?? [];
  const runners = await chooseRunners(connection, env, { named, requires: undefined });
  if (isFailure(runners)) return runners;
  const binding = { namespace: connection.ns, workSha256: null, condition, expiresAt };
  const sealed = await sealAll([secret], runners, binding);
  if (isFailure(sealed)) return sealed;
  const [{ box = "" } = {}] = sealed;
  const answer = await connection.ask(putSecret, {
    params: { ns: connection.ns, secret: secret.name },
    body: { box, runners: runners.map(({ runner }) => runner), condition },
  });
  if (isFailure(answer)) return answer;
  const advice = unpinnedAdvice(runners, named);
  if (advice !== null) terminal.note(`${paint.care("!")} ${advice}`);
  printDone(terminal, {
    line: `${sealedLine([secret.name], runners)}, if ${describeCondition(condition)}`,
    next: `plumule submit --secret ${secret.name} …`,
    id: secret.name,
    answer: answer.body,
  });
  return EXIT.ok;
}

async function show({ terminal, connect }: Context): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const answer = await connection.ask(listSecrets, { params: { ns: connection.ns } });
  if (isFailure(answer)) return answer;
  const { items } = answer.body;
  if (terminal.json) for (const item of items) terminal.data(item);
  else if (items.length === 0) terminal.note(`no secret is stored  ${paint.quiet("→ plumule secret set NAME=@FILE")}`);
  else for (const line of secretTable(items, Date.now())) terminal.out(line);
  return EXIT.ok;
}

/** Secrets as a table. */
export function secretTable(items: readonly SecretView[], now: number): string[] {
  const rows = items.map(({ name, runners, condition, storedAt, storedBy }) => [
    paint.strong(inLine(name)),
    String(runners.length),
    inLine(describeCondition(condition)),
    ageOf(storedAt, now),
    inLine(storedBy),
  ]);
  return tableLines(["SECRET", "RUNNERS", "IF", "AGE", "STORED BY"], rows);
}

async function forget({ terminal, connect }: Context, name: string): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const answer = await connection.ask(removeSecret, { params: { ns: connection.ns, secret: name } });
  if (isFailure(answer)) return answer;
  printDone(terminal, {
    line: `${name} is forgotten; jobs that were submitted with it keep it`,
    next: "plumule secret ls",
    id: name,
    answer: { name, removed: true },
  });
  return EXIT.ok;
}
