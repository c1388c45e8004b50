import { Command, CommanderError } from "commander";
import { EXIT } from "./exit-codes.ts";

/** Every verb, in the order of the help, under the heading that it belongs to. Loaded when it is asked for. */
const VERBS: Readonly<Record<string, { group: string; load: () => Promise<Command> }>> = {
  submit: { group: "Jobs:", load: async () => (await import("./commands/submit.ts")).submitCommand() },
  watch: { group: "Jobs:", load: async () => (await import("./commands/watch.ts")).watchCommand() },
  logs: { group: "Jobs:", load: async () => (await import("./commands/logs.ts")).logsCommand() },
  ls: { group: "Jobs:", load: async () => (await import("./commands/ls.ts")).lsCommand() },
  get: { group: "Jobs:", load: async () => (await import("./commands/get.ts")).getCommand() },
  locks: { group: "Jobs:", load: async () => (await import("./commands/locks.ts")).locksCommand() },
  why: { group: "Jobs:", load: async () => (await import("./commands/why.ts")).whyCommand() },
  verify: { group: "Jobs:", load: async () => (await import("./commands/verify.ts")).verifyCommand() },
  cancel: { group: "Acting on jobs:", load: async () => (await import("./commands/act-on-jobs.ts")).cancelCommand() },
  rerun: { group: "Acting on jobs:", load: async () => (await import("./commands/submit.ts")).rerunCommand() },
  approve: { group: "Acting on jobs:", load: async () => (await import("./commands/act-on-jobs.ts")).approveCommand() },
  resolve: { group: "Acting on jobs:", load: async () => (await import("./commands/act-on-jobs.ts")).resolveCommand() },
  redeliver: {
    group: "Acting on jobs:",
    load: async () => (await import("./commands/redeliver.ts")).redeliverCommand(),
  },
  schedule: { group: "Acting on jobs:", load: async () => (await import("./commands/schedule.ts")).scheduleCommand() },
  delete: { group: "Acting on jobs:", load: async () => (await import("./commands/act-on-jobs.ts")).deleteCommand() },
  runner: { group: "Machines and keys:", load: async () => (await import("./commands/runner.ts")).runnerCommand() },
  triggers: {
    group: "Machines and keys:",
    load: async () => (await import("./commands/triggers.ts")).triggersCommand(),
  },
  bridge: { group: "Machines and keys:", load: async () => (await import("./commands/bridge.ts")).bridgeCommand() },
  adapter: { group: "Machines and keys:", load: async () => (await import("./commands/adapter.ts")).adapterCommand() },
  doctor: { group: "Machines and keys:", load: async () => (await import("./commands/doctor.ts")).doctorCommand() },
  key: { group: "Machines and keys:", load: async () => (await import("./commands/key.ts")).keyCommand() },
  secret: { group: "Machines and keys:", load: async () => (await import("./commands/secret.ts")).secretCommand() },
  token: { group: "Machines and keys:", load: async () => (await import("./commands/token.ts")).tokenCommand() },
  member: { group: "Machines and keys:", load: async () => (await import("./commands/member.ts")).memberCommand() },
  audit: { group: "Machines and keys:", load: async () => (await import("./commands/audit.ts")).auditCommand() },
  login: { group: "You:", load: async () => (await import("./commands/login.ts")).loginCommand() },
  logout: { group: "You:", load: async () => (await import("./commands/login.ts")).logoutCommand() },
  open: { group: "You:", load: async () => (await import("./commands/login.ts")).openCommand() },
  workspace: {
    group: "On this machine:",
    load: async () => (await import("./commands/workspace.ts")).workspaceCommand(),
  },
  lint: { group: "On this machine:", load: async () => (await import("./commands/lint.ts")).lintCommand() },
  dev: { group: "On this machine:", load: async () => (await import("./commands/dev.ts")).devCommand() },
  demo: { group: "On this machine:", load: async () => (await import("./commands/demo.ts")).demoCommand() },
};

/**
 * Runs a command line and leaves the process once everything that was printed is out. It does not wait for what is still open: a socket's
 * farewell may take as long as the other side likes.
 */
export async function runProgram(argv: readonly string[], version: string): Promise<void> {
  // `plumule logs | head` closes our stdout; there is nobody left to tell.
  process.stdout.on("error", (error: NodeJS.ErrnoException) =>
    process.exit(error.code === "EPIPE" ? EXIT.ok : EXIT.failed),
  );
  const program = createProgram(version);
  const verb = verbOf(argv);
  // Help and mistyped verbs need all of them.
  const wanted = verb !== undefined && verb in VERBS ? [verb] : Object.keys(VERBS);
  for (const name of wanted) {
    const known = VERBS[name];
    if (known !== undefined) program.addCommand(prepare((await known.load()).helpGroup(known.group)));
  }
  try {
    await program.parseAsync(argv, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  }
  await Promise.all([process.stdout, process.stderr].map((stream) => new Promise((done) => stream.write("", done))));
  process.exit();
}

/** The first word that is neither a flag of the program nor the value of one. */
function verbOf(argv: readonly string[]): string | undefined {
  const takesValue = ["--url", "--namespace", "--token"];
  return argv.find((word, index) => !word.startsWith("-") && !takesValue.includes(argv[index - 1] ?? ""));
}

function createProgram(version: string): Command {
  return prepare(
    new Command("plumule")
      .description("Jobs for Radicle and Nix: submit, follow, and verify what came of them.")
      .option("--json", "print JSON, one document per line")
      .option("--url <url>", "the broker (or PLUMULE_URL)")
      .option("--namespace <name>", "the namespace (or PLUMULE_NAMESPACE)")
      .option("--token <token>", "the token (better: PLUMULE_TOKEN, which no list of processes shows)")
      .version(version, "-V, --version", "print the version")
      .helpCommand("help [command]", "explain a command, or `help exit-codes`")
      .addHelpText(
        "after",
        "\nThe broker is found through flags, PLUMULE_*, .plumule/dev.json of this folder or one above, or ~/.config/plumule/config.json.",
      ),
  );
}

/** Errors are ours to turn into exit codes, and help shows what every command takes. */
function prepare(command: Command): Command {
  command.exitOverride().showSuggestionAfterError().configureHelp({ showGlobalOptions: true });
  for (const part of command.commands) prepare(part);
  return command;
}
