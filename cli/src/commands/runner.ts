import { createRegistration, ISOLATION_LEVELS } from "@plumule/protocol";
import { EXIT_REFUSED, EXIT_TOO_OLD, type RunnerOptions, startRunner } from "@plumule/runner";
import { Command, Option } from "commander";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure, misuse } from "../failure.ts";
import { collect, wholeNumber } from "../flags.ts";
import { paint } from "../print.ts";
import { runnerSettings } from "../runner-settings.ts";
import { fleet, setDrained } from "./runner-fleet.ts";

type StartFlags = {
  config?: string;
  registration?: string;
  state?: string;
  name?: string;
  key?: string;
  agent?: string;
  capacity?: number;
  system?: string[];
  feature?: string[];
  label?: string[];
  isolation?: string;
  allowLocal?: true;
  untrusted?: true;
  secretsOnDisk?: true;
  nixStore?: string;
  once?: true;
};

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
  for (const command of [startCommand(), list, drain, undrain, token]) runner.addCommand(command);
  return runner;
}

function startCommand(): Command {
  return new Command("start")
    .summary("do work on this machine")
    .description(
      "Asks the broker for work and does it, until it is stopped: the first Ctrl-C takes no new work, the second ends the runs, the third leaves at once; SIGHUP leaves at once too, and the runs go on for the next start to follow. Every flag is a variable too (--nix-store is PLUMULE_NIX_STORE), and a field of the file.",
    )
    .option("--config <file>", "JSON file of settings (default: ~/.config/plumule/runner.json)")
    .option("--registration <token>", "one-time token; needed once: plumule runner token")
    .option("--state <folder>", "where everything is kept (default: ~/.local/state/plumule/runner)")
    .option("--name <name>", "what people call it (default: the host's name)")
    .option("--key <file>", "key file (default: key.pem in the state folder, made when missing)")
    .option("--agent <did>", "sign with this key of the ssh-agent")
    .option("--capacity <runs>", "runs at a time (default: 1)", wholeNumber(1))
    .option("--system <system>", "a system beside what Nix says; may be repeated", collect)
    .option("--feature <feature>", "something that jobs may ask for; may be repeated", collect)
    .option("--label <label>", "likewise; may be repeated", collect)
    .addOption(
      new Option("--isolation <level>", "how well jobs are kept apart (default: the best here)").choices([
        ...ISOLATION_LEVELS,
      ]),
    )
    .option("--allow-local", "let jobs name repositories of this machine by file: URLs")
    .option("--untrusted", "take approved jobs of strangers; only for a machine or user that holds nothing else")
    .option("--secrets-on-disk", "let secrets of jobs lie on the disk where this machine has no file system in memory")
    .option("--nix-store <folder>", "a Nix store of the runner's own")
    .option("--once", "leave after one run")
    .action(act(start));
}

async function start(
  { terminal, env, cwd, globals, connect }: Context,
  { config, agent, system, feature, label, ...flags }: StartFlags,
): Promise<ExitCode | Failure> {
  const { url, namespace } = globals;
  const named = { ...flags, url, namespace, agentKey: agent, systems: system, features: feature, labels: label };
  const settings = await runnerSettings(named, { file: config, env, cwd });
  if (isFailure(settings)) return settings;
  if (settings["url"] === undefined || settings["namespace"] === undefined) {
    const connection = await connect();
    if (isFailure(connection)) return connection;
    settings["url"] ??= connection.place.url;
    settings["namespace"] ??= connection.ns;
  }
  const runner = await startRunner(settings as RunnerOptions, { fetch, say: terminal.note });
  if ("refused" in runner)
    return misuse(
      `The runner does not start: ${runner.refused}`,
      "`plumule runner start --help` lists what can be set.",
    );
  if (terminal.json) terminal.data({ runner: runner.id });
  const stop = (): void => runner.stop();
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  process.on("SIGHUP", () => runner.leaveRuns());
  const code = await runner.done;
  if (code === EXIT_TOO_OLD) {
    const next = "Update plumule on this machine, then start the runner again: its state is kept.";
    return { exit: EXIT.outdated, what: "This runner is too old for the broker", next };
  }
  if (code === EXIT_REFUSED) {
    const next = "Register this key: `plumule runner token` where you have a token, then start with --registration.";
    return { exit: EXIT.authentication, what: "The broker does not know this runner", next };
  }
  return code === 0 ? EXIT.ok : EXIT.failed;
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
