import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { text } from "node:stream/consumers";
import {
  getTriggers,
  LIMITS,
  putTriggers,
  testTriggers,
  type TriggersTest,
  type TriggersView,
} from "@plumule/protocol";
import { Command, Option } from "commander";
import { findCommit, readCheckout } from "../checkout.ts";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure, misuse } from "../failure.ts";
import { collect, wholeNumber } from "../flags.ts";
import { limitsText, paint, printDone, tableLines } from "../print.ts";
import { inLine } from "../terminal-text.ts";

type EventFlags = {
  repository?: string;
  ref?: string;
  commit?: string;
  author?: string;
  delegate?: string[];
  followed?: true;
  patch?: string;
  path?: string[];
};

/** `plumule triggers`: which pushes make which jobs. */
export function triggersCommand(): Command {
  const list = new Command("ls").summary("list the rules; with --json the document that `set` takes").action(act(show));
  const set = new Command("set")
    .summary("replace rules and hooks")
    .description(
      "Replaces rules and hooks as a whole by those of a JSON file. A `version` in it, as `ls --json` prints, has to be that of what is replaced; so does --if-version. Hooks keep the secrets that the file does not say.",
    )
    .argument("<file>", "JSON; - reads it from stdin")
    .option("--if-version <number>", "only if the rules that stand have this version", wholeNumber(0))
    .action(act(put));
  const test = new Command("test")
    .summary("explain rule by rule what a push would start, and why not")
    .description(
      "Asks the broker what its rules would make of a push, and changes nothing. The push is a webhook's body, or said in flags; in a git checkout those left out are of its commit.",
    )
    .argument("[event]", "JSON file of a webhook's body: plumule's own, Radicle Garden's or GitHub's; - reads stdin")
    .option("--repository <url>", "repository, as a rad: or https: URL")
    .option("--ref <ref>", "such as refs/heads/main, refs/tags/v1; with --patch it is known")
    .option("--commit <commit>", "by any name that git knows here")
    .option("--author <did>", "who pushes: did:key or node id")
    .option("--delegate <did>", "a delegate of the repository; may be repeated", collect)
    .option("--followed", "the sender's node follows the author")
    .option("--patch <id>", "it is a patch")
    .addOption(new Option("--path <path>", "a path that changes; may be repeated").argParser(collect))
    .action(act(explain));
  return new Command("triggers")
    .summary("rules: which pushes make which jobs")
    .addCommand(list)
    .addCommand(test)
    .addCommand(set);
}

async function show({ terminal, connect }: Context): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const answer = await connection.ask(getTriggers, { params: { ns: connection.ns } });
  if (isFailure(answer)) return answer;
  const view = answer.body ?? { version: 0, triggers: [], hooks: [] };
  if (terminal.json) terminal.data(view);
  else if (view.triggers.length === 0) terminal.note("no rule yet  → plumule triggers set FILE");
  else for (const line of triggerTable(view)) terminal.out(line);
  return EXIT.ok;
}

/** Rules as a table. */
export function triggerTable({ triggers, paths = {} }: Pick<TriggersView, "triggers" | "paths">): string[] {
  const rows = triggers.map(({ name, events, repositories, refs, authors, deployment, task }) => [
    paint.strong(name),
    events?.join(", ") ?? "all",
    repositories === undefined || repositories.length === 0 ? "all" : inLine(repositories.join(", ")),
    inLine(refs.join(", ")),
    authors === undefined ? "all" : inLine(authors.join(", ")),
    Object.hasOwn(paths, name) ? inLine((paths[name] ?? []).join(", ")) : "all",
    inLine(deployment),
    task.kind,
  ]);
  return tableLines(["RULE", "EVENTS", "REPOSITORIES", "REFS", "AUTHORS", "PATHS", "DEPLOYMENT", "TASK"], rows);
}

async function put(
  { terminal, cwd, connect }: Context,
  file: string,
  { ifVersion }: { ifVersion?: number },
): Promise<ExitCode | Failure> {
  const document = await readObject(file, cwd);
  if (isFailure(document)) return document;
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const { ns } = connection;
  const { version: written, ...body } = document;
  if (written !== undefined && !(typeof written === "number" && Number.isSafeInteger(written)))
    return misuse("/version is no whole number", "Leave it out, or give what `plumule triggers ls --json` prints.");
  let version = ifVersion ?? written;
  if (version === undefined) {
    const current = await connection.ask(getTriggers, { params: { ns } });
    if (isFailure(current)) return current;
    version = current.body?.version ?? 0;
  }
  // The broker judges the document: its words name what is wrong by pointer.
  const answer = await connection.ask(putTriggers, {
    params: { ns },
    body: { ...body, hooks: withoutShown(body["hooks"]) } as never,
    headers: { "if-match": `"v${version}"` },
  });
  if (isFailure(answer)) return answer;
  const { triggers, version: now } = answer.body;
  printDone(terminal, {
    line: `${triggers.length} ${triggers.length === 1 ? "rule stands" : "rules stand"}, version ${now}`,
    next: "plumule triggers test --ref refs/heads/main",
    id: String(now),
    answer: answer.body,
  });
  return EXIT.ok;
}

/** Hooks without what is only shown of them. */
function withoutShown(hooks: unknown): unknown {
  if (!Array.isArray(hooks)) return hooks;
  return hooks.map((hook: unknown) => {
    if (typeof hook !== "object" || hook === null) return hook;
    const { hasSecret: _, ...rest } = hook as Record<string, unknown>;
    return rest;
  });
}

async function explain(
  { terminal, cwd, connect }: Context,
  file: string | undefined,
  flags: EventFlags,
): Promise<ExitCode | Failure> {
  if (file !== undefined && Object.keys(flags).length > 0)
    return misuse("The push comes from a file and from flags", "Give one of them.");
  const event = file === undefined ? await eventOf(flags, cwd) : await readObject(file, cwd);
  if (isFailure(event)) return event;
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const answer = await connection.ask(testTriggers, { params: { ns: connection.ns }, body: event });
  if (isFailure(answer)) return answer;
  if (terminal.json) terminal.data(answer.body);
  else for (const line of testLines(answer.body)) terminal.out(line);
  return EXIT.ok;
}

/** The webhook's body that flags and the checkout around describe. */
async function eventOf(flags: EventFlags, cwd: string): Promise<Record<string, unknown> | Failure> {
  const { author, delegate, followed, patch, path } = flags;
  const checkout = await readCheckout(cwd);
  const commit = flags.commit === undefined ? (checkout?.commit ?? null) : await findCommit(cwd, flags.commit);
  if (commit === null && flags.commit !== undefined)
    return misuse(`git knows no commit ${flags.commit}`, "Give the full commit id.");
  const repository = flags.repository ?? checkout?.repository ?? null;
  const ref = flags.ref ?? (patch === undefined ? (checkout?.ref ?? null) : `refs/patches/${patch}`);
  const missing = [
    ...(repository === null ? ["--repository"] : []),
    ...(ref === null ? ["--ref"] : []),
    ...(commit === null ? ["--commit"] : []),
  ];
  if (missing.length > 0)
    return misuse(
      `A push needs ${missing.join(", ")}`,
      "Say them, stand in a checkout, or name a file: plumule triggers test EVENT.json",
    );
  return {
    type: patch === undefined ? (ref?.startsWith("refs/tags/") === true ? "tag" : "push") : "patch",
    repository,
    ref,
    after: commit,
    ...(author === undefined ? {} : { author, followed: followed === true }),
    ...(delegate === undefined ? {} : { delegates: delegate }),
    ...(patch === undefined ? {} : { patch }),
    ...(path === undefined ? {} : { paths: path }),
  };
}

/** An explanation for people: the push, then every rule with all that it asks. */
export function testLines({ version, push, detail, results }: TriggersTest): string[] {
  const by = push?.author == null ? "" : ` by ${push.author}`;
  const what =
    push === null ? "no push" : `${push.type} of ${push.ref} ${push.after.slice(0, 7)} in ${push.repository}${by}`;
  return [
    `${inLine(what)}  ${paint.quiet(`rules of version ${version}`)}`,
    ...(detail === null ? [] : [`${paint.care("!")} nothing starts: ${inLine(detail)}`]),
    ...results.flatMap(({ trigger, deployment, detail: outcome, approvers, limits, checks }) => [
      deployment === null
        ? `${paint.bad("✗")} ${paint.strong(inLine(trigger))}  ${inLine(outcome)}`
        : `${paint.good("✓")} ${paint.strong(inLine(trigger))} → ${inLine(deployment)}  ${inLine(outcome)}`,
      ...checks.map(
        ({ name, ok, assumed, detail: why }) =>
          `    ${assumed === true ? paint.care("?") : ok ? paint.good("✓") : paint.bad("✗")} ${inLine(name)}: ${inLine(why)}`,
      ),
      ...(approvers === undefined ? [] : [`    may approve: ${inLine(approvers.join(", "))}`]),
      ...(limits === undefined ? [] : [`    at most: ${limitsText(limits) ?? "what its runner lets any job have"}`]),
    ]),
  ];
}

/** Reads a file, or stdin for `-`, that has to be a JSON object. */
async function readObject(file: string, cwd: string): Promise<Record<string, unknown> | Failure> {
  const content = await (file === "-" ? text(process.stdin) : readFile(resolve(cwd, file), "utf8")).catch(
    (error: Error) =>
      misuse(`${file} cannot be read: ${error.message}`, "Give a file that you can read, or - for stdin."),
  );
  if (isFailure(content)) return content;
  if (content.length > LIMITS.submitBytes)
    return misuse(`${file} has ${content.length} characters`, `At most ${LIMITS.submitBytes} are taken.`);
  try {
    const value: unknown = JSON.parse(content);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch (error) {
    return misuse(
      `${file} is not JSON: ${error instanceof Error ? error.message : String(error)}`,
      "Correct it there.",
    );
  }
  return misuse(`${file} is no JSON object`, "See docs/triggers.md for its form.");
}
