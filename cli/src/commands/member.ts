import {
  deploymentPatternSchema,
  getMembers,
  type Member,
  type MembersView,
  putMembers,
  type Role,
  ROLES,
  roleSchema,
} from "@plumule/protocol";
import { Command, Option } from "commander";
import type { Connection } from "../connection.ts";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure, misuse } from "../failure.ts";
import { collect } from "../flags.ts";
import { paint, printDone, shortKey, tableLines } from "../print.ts";
import { inLine } from "../terminal-text.ts";

/** `plumule member`: the people who may log in with a Radicle key. */
export function memberCommand(): Command {
  const add = new Command("add")
    .summary("let somebody log in, or give them another role")
    .argument("<did>", "did:key of their Radicle key: `rad self --did`")
    .addOption(new Option("--role <role>", "what they do").choices(roleSchema.options).default("developer"))
    .option("--name <name>", "what you call them")
    .option("--deployment <id>", "only this deployment, or `shop-*`; may be repeated", collect)
    .action(act(put));
  const remove = new Command("rm")
    .summary("log somebody out for good, within seconds")
    .argument("<who>", "did:key or name")
    .action(act(take));
  const list = new Command("ls").summary("list who may log in").action(act(show));
  return new Command("member")
    .summary("people who may log in with a Radicle key")
    .addCommand(add)
    .addCommand(remove)
    .addCommand(list);
}

async function put(
  { terminal, connect }: Context,
  key: string,
  flags: { role: Role; name?: string; deployment?: string[] },
): Promise<ExitCode | Failure> {
  const unfit = (flags.deployment ?? []).find((pattern) => !deploymentPatternSchema.safeParse(pattern).success);
  if (unfit !== undefined)
    return misuse(`${unfit} names no deployments`, "Give an id, or its beginning with a `*`: shop-*.");
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const member: Member = {
    key,
    name: flags.name ?? shortKey(key),
    role: flags.role,
    ...(flags.deployment === undefined ? {} : { deployments: flags.deployment }),
  };
  const changed = await change(connection, (members) => [...members.filter((one) => one.key !== key), member]);
  if (isFailure(changed)) return changed;
  printDone(terminal, {
    line: `${inLine(member.name)} may log in as ${member.role} (scope ${ROLES[member.role]})`,
    next: "plumule member ls",
    id: key,
    answer: member,
  });
  return EXIT.ok;
}

async function take({ terminal, connect }: Context, who: string): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  let gone: Member[] = [];
  const changed = await change(connection, (members) => {
    gone = members.filter(({ key, name }) => key === who || name === who);
    return members.filter((member) => !gone.includes(member));
  });
  if (isFailure(changed)) return changed;
  if (gone.length === 0)
    return { exit: EXIT.notFound, what: `${who} is no member`, next: "See who is: `plumule member ls`." };
  printDone(terminal, {
    line: `${gone.map(({ name }) => inLine(name)).join(", ")} cannot log in any more`,
    next: "plumule member ls",
    id: gone.map(({ key }) => key).join("\n"),
    answer: { removed: gone },
  });
  return EXIT.ok;
}

async function show({ terminal, connect }: Context): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const answer = await connection.ask(getMembers, { params: { ns: connection.ns } });
  if (isFailure(answer)) return answer;
  const members = answer.body?.members ?? [];
  if (terminal.json) for (const member of members) terminal.data(member);
  else if (members.length === 0) terminal.note("nobody may log in; `plumule member add did:key:…`");
  else for (const line of memberTable(members)) terminal.out(line);
  return EXIT.ok;
}

/** Members as a table. */
export function memberTable(members: readonly Member[]): string[] {
  const rows = members.map(({ key, name, role, deployments }) => [
    paint.strong(inLine(name)),
    role,
    deployments?.join(", ") ?? "all",
    paint.quiet(key),
  ]);
  return tableLines(["NAME", "ROLE", "DEPLOYMENTS", "KEY"], rows);
}

/** Reads, changes and writes the list under its ETag, so that two who change it at once lose nothing. */
async function change(
  { ask, ns }: Connection,
  edit: (members: readonly Member[]) => Member[],
): Promise<MembersView | Failure> {
  const current = await ask(getMembers, { params: { ns } });
  if (isFailure(current)) return current;
  const { version, members } = current.body ?? { version: 0, members: [] };
  const edited = edit(members);
  if (edited.length === members.length && edited.every((member, at) => member === members[at]))
    return { version, members };
  const answer = await ask(putMembers, {
    params: { ns },
    body: { members: edited },
    headers: { "if-match": `"v${version}"` },
  });
  return isFailure(answer) ? answer : answer.body;
}
