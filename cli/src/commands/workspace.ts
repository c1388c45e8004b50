import { isWorkspaceRefusal, type OpenWorkspace, type WorkspaceConfig, type WorkspaceRefusal } from "@plumule/runner";
import { Command } from "commander";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure } from "../failure.ts";
import { collectPairs } from "../flags.ts";
import { ageOf, paint, printDone, tableLines } from "../print.ts";
import { createTextFilter, inLine } from "../terminal-text.ts";
import {
  configOf,
  failureOfWorkspace,
  findWorkspace,
  idOf,
  openProvider,
  openProviders,
  type ProvisionFlags,
  type WhichFlags,
  withProvisionFlags,
  withStateFlag,
  withWhichFlags,
} from "../workspaces.ts";
import { execCommand } from "./workspace-exec.ts";
import { serveCommand } from "./workspace-serve.ts";

/** `plumule workspace`: fresh places for commands on this machine, made from repositories and a set-up script. */
export function workspaceCommand(): Command {
  const up = withProvisionFlags(
    new Command("up")
      .summary("set a workspace up")
      .description(
        'Brings the repositories of a configuration to their paths and runs its set-up script, or takes what an earlier run of it left. The configuration is {"name", "repositories": [{"url", "path", "reference"?}], "setup_script"}.',
      )
      .option("--id <id>", "what it is found by again (default: the name of the configuration)")
      .option("--env <name=value>", "a variable for the script and every command; may be repeated", collectPairs),
  ).action(act(setUp));
  const fetch = withWhichFlags(
    new Command("fetch")
      .summary("bring new commits of its repositories")
      .description("Brings each repository to the newest commit of its reference. Changes to tracked files are lost.")
      .argument("[id]"),
  ).action(act(bringCommits));
  const reset = withWhichFlags(
    new Command("reset")
      .summary("put everything back to how it was after the set-up")
      .description("Puts tracked, untracked and ignored files back to how they were after the set-up.")
      .argument("[id]"),
  ).action(act(putBack));
  const changes = withWhichFlags(
    new Command("changes")
      .summary("list the files that changed since the set-up")
      .description(
        "Lists what was added (A), modified (M) and deleted (D) since the set-up, or the last reset or fetch.",
      )
      .argument("[id]"),
  ).action(act(listChanges));
  const down = withWhichFlags(
    new Command("down").summary("end what runs in a workspace, and remove it").argument("[id]"),
  ).action(act(takeDown));
  const list = withStateFlag(new Command("ls").summary("list workspaces")).action(act(listAll));
  const workspace = new Command("workspace").summary("set up places for commands, use them, and serve them to others");
  for (const command of [up, execCommand(), fetch, reset, changes, down, list, serveCommand()])
    workspace.addCommand(command);
  return workspace;
}

type UpFlags = ProvisionFlags & { id?: string; env?: Record<string, string> };

async function setUp(context: Context, flags: UpFlags): Promise<ExitCode | Failure> {
  const { terminal } = context;
  const config = await configOf(flags.workspaceConfigPath, context);
  if (isFailure(config)) return config;
  const provider = await openProvider(flags.provisioningMode, flags, context);
  if (isFailure(provider)) return provider;
  const id = flags.id ?? idOf(config);
  // The script is of whoever wrote the configuration, and what it prints of whatever it runs.
  const filter = createTextFilter({ colours: terminal.colours });
  const decoder = new TextDecoder();
  const stop = new AbortController();
  process.once("SIGINT", () => stop.abort());
  process.once("SIGTERM", () => stop.abort());
  const made = await provider.setup({
    config,
    cancel: stop.signal,
    onOutput: (chunk) => void process.stderr.write(filter.push(decoder.decode(chunk, { stream: true }))),
    ...(id === undefined ? {} : { id }),
    ...(flags.env === undefined ? {} : { env: flags.env }),
  });
  process.stderr.write(filter.flush());
  if (isWorkspaceRefusal(made)) return failureOfUp(made, id);
  const script = made.setupCached === null ? "" : made.setupCached ? ", set-up from the cache" : ", set-up done";
  const line = `workspace ${paint.strong(made.id)} is up (${made.provider}, ${made.strategy}${script})`;
  printDone(terminal, { line, next: `plumule workspace exec ${made.id} -- ls`, id: made.id, answer: made });
  return EXIT.ok;
}

function failureOfUp(refusal: WorkspaceRefusal, id: string | undefined): Failure {
  const failure = failureOfWorkspace(refusal);
  if (refusal.refused !== "busy" || id === undefined) return failure;
  return { ...failure, next: `Use it, remove it with \`plumule workspace down ${id}\`, or give another --id.` };
}

/** Does something with a workspace and says so. */
async function withWorkspace<T extends object>(
  context: Context,
  id: string | undefined,
  flags: WhichFlags,
  act: (workspace: OpenWorkspace, config: WorkspaceConfig | null) => Promise<T | WorkspaceRefusal>,
  tell: (answer: T, workspace: OpenWorkspace) => { line: string; next: string },
): Promise<ExitCode | Failure> {
  const found = await findWorkspace(id, flags, context);
  if (isFailure(found)) return found;
  const { workspace } = found;
  const answer = await act(workspace, found.config);
  if (isWorkspaceRefusal(answer)) return failureOfWorkspace(answer);
  printDone(context.terminal, { ...tell(answer, workspace), id: workspace.id, answer });
  return EXIT.ok;
}

function bringCommits(context: Context, id: string | undefined, flags: WhichFlags): Promise<ExitCode | Failure> {
  return withWorkspace(
    context,
    id,
    flags,
    // The credentials of repositories stand in the configuration alone.
    (workspace, config) => workspace.fetch(config === null ? {} : { config }),
    ({ repositories }, workspace) => ({
      line: `${repositories.map(({ path, commit }) => `${path} is at ${commit.slice(0, 12)}`).join(", ") || "there is nothing to fetch"}`,
      next: `plumule workspace exec ${workspace.id} -- git log -1`,
    }),
  );
}

function putBack(context: Context, id: string | undefined, flags: WhichFlags): Promise<ExitCode | Failure> {
  return withWorkspace(
    context,
    id,
    flags,
    (workspace) => workspace.reset(),
    (_, workspace) => ({
      line: `workspace ${workspace.id} is as it was after its set-up`,
      next: `plumule workspace exec ${workspace.id} -- ls`,
    }),
  );
}

function takeDown(context: Context, id: string | undefined, flags: WhichFlags): Promise<ExitCode | Failure> {
  return withWorkspace(
    context,
    id,
    flags,
    (workspace) => workspace.teardown(),
    (_, workspace) => ({ line: `workspace ${workspace.id} is removed`, next: "plumule workspace ls" }),
  );
}

async function listChanges(context: Context, id: string | undefined, flags: WhichFlags): Promise<ExitCode | Failure> {
  const { terminal } = context;
  const found = await findWorkspace(id, flags, context);
  if (isFailure(found)) return found;
  const { workspace } = found;
  const set = await workspace.changes();
  if (isWorkspaceRefusal(set)) return failureOfWorkspace(set);
  if (terminal.json) terminal.data(set);
  else if (set.changes.length === 0) terminal.note(`Nothing changed in workspace ${workspace.id}.`);
  else for (const { change, path } of set.changes) terminal.out(`${change.slice(0, 1).toUpperCase()} ${inLine(path)}`);
  return EXIT.ok;
}

async function listAll(context: Context, flags: { state?: string }): Promise<ExitCode | Failure> {
  const { terminal } = context;
  const lists = await Promise.all((await openProviders(flags, context)).map((provider) => provider.list()));
  const all = lists.flat();
  if (terminal.json) for (const summary of all) terminal.data(summary);
  else if (all.length === 0) terminal.note("There is no workspace.  → plumule workspace up -w config.json");
  else {
    const now = Date.now();
    const rows = all.map(({ id, name, provider, createdAt }) => [
      paint.strong(id),
      inLine(name),
      provider,
      ageOf(createdAt, now),
    ]);
    for (const line of tableLines(["ID", "NAME", "PROVIDER", "AGE"], rows)) terminal.out(line);
  }
  return EXIT.ok;
}
