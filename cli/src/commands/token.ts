import {
  createToken,
  listTokens,
  revokeToken,
  type Role,
  roleSchema,
  SCOPES,
  type Scope,
  type TokenView,
} from "@plumule/protocol";
import { Command, Option } from "commander";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure, misuse } from "../failure.ts";
import { collect } from "../flags.ts";
import { ageOf, paint, printDone, tableLines } from "../print.ts";
import { inLine } from "../terminal-text.ts";
import { timeOf } from "../times.ts";

/** `plumule token`: what programs and people log in with. */
export function tokenCommand(): Command {
  const create = new Command("create")
    .summary("make a token; its secret is shown once")
    .argument("<name>", "who or what will use it")
    .addOption(
      new Option("--scope <scope>", "what it may do; each includes those before it (default: read)").choices([
        ...SCOPES,
      ]),
    )
    .addOption(
      new Option("--role <role>", "or the role of who will use it").choices(roleSchema.options).conflicts("scope"),
    )
    .option("--deployment <id>", "only this deployment, or `shop-*`; may be repeated", collect)
    .option("--expires <time>", "when it ends: days such as 90d, or an RFC 3339 time")
    .action(act(make));
  const list = new Command("ls").summary("list tokens, without their secrets").action(act(show));
  const revoke = new Command("revoke")
    .summary("make a token worthless, within seconds")
    .argument("<id>", "id of the token, or the token itself")
    .action(act(end));
  return new Command("token")
    .summary("make, list and revoke tokens")
    .addCommand(create)
    .addCommand(list)
    .addCommand(revoke);
}

async function make(
  { terminal, connect }: Context,
  name: string,
  flags: { scope?: Scope; role?: Role; deployment?: string[]; expires?: string },
): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const expiresAt = flags.expires === undefined ? undefined : timeOf(flags.expires, Date.now());
  if (expiresAt === null)
    return misuse(`${flags.expires} is no time`, "Give days such as 90d, or a time such as 2027-01-31T00:00:00Z.");
  const answer = await connection.ask(createToken, {
    params: { ns: connection.ns },
    body: {
      name,
      ...(flags.role === undefined ? { scopes: [flags.scope ?? "read"] } : { role: flags.role }),
      ...(flags.deployment === undefined ? {} : { deployments: flags.deployment }),
      ...(expiresAt === undefined ? {} : { expiresAt }),
    },
  });
  if (isFailure(answer)) return answer;
  if (terminal.json) terminal.data(answer.body);
  else {
    terminal.out(answer.body.token);
    terminal.note(
      `${paint.good("✓")} this is the only time that it is shown  ${paint.quiet("→ PLUMULE_TOKEN=… plumule ls")}`,
    );
  }
  return EXIT.ok;
}

async function show({ terminal, connect }: Context): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const answer = await connection.ask(listTokens, { params: { ns: connection.ns } });
  if (isFailure(answer)) return answer;
  if (terminal.json) for (const token of answer.body.items) terminal.data(token);
  else for (const line of tokenTable(answer.body.items, Date.now())) terminal.out(line);
  return EXIT.ok;
}

/** Tokens as a table. */
export function tokenTable(items: readonly TokenView[], now: number): string[] {
  const rows = items.map(({ id, name, scopes, role, deployments, createdAt, expiresAt, createdBy }) => [
    paint.strong(id),
    inLine(name),
    role ?? scopes.join(","),
    deployments?.join(",") ?? "all",
    ageOf(createdAt, now),
    expiresAt === null ? "never" : Date.parse(expiresAt) <= now ? paint.bad("expired") : expiresAt.slice(0, 10),
    inLine(createdBy),
  ]);
  return tableLines(["TOKEN", "NAME", "MAY", "DEPLOYMENTS", "AGE", "EXPIRES", "MADE BY"], rows);
}

async function end({ terminal, connect }: Context, which: string): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const id = /^plm_([a-z0-9]{12})_/.exec(which)?.[1] ?? which;
  const answer = await connection.ask(revokeToken, { params: { ns: connection.ns, token: id } });
  if (isFailure(answer)) return answer;
  printDone(terminal, {
    line: `token ${id} is worthless within seconds`,
    next: "plumule token ls",
    id,
    answer: { id, revoked: true },
  });
  return EXIT.ok;
}
