import { RUNNER_EXIT, type RunnerExit, type RunnerOptions } from "@plumule/runner/settings";
import { Command } from "commander";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure } from "../failure.ts";
import { type RunnerFlags, settingsOfFlags, withRunnerFlags } from "./runner-flags.ts";

type StartFlags = RunnerFlags & { dryRun?: true };

/** `plumule runner start`. */
export function startCommand(): Command {
  return withRunnerFlags(
    new Command("start")
      .summary("do work on this machine")
      .description(
        "Asks the broker for work and does it, until it is stopped: the first Ctrl-C takes no new work, the second ends the runs, the third leaves at once; SIGHUP leaves at once too, and the runs go on for the next start to follow. Every flag is a variable too (--nix-store is PLUMULE_NIX_STORE), and a field of the file.",
      ),
  )
    .option("--dry-run", "with --follow: begin nothing, and say what each push since the last start would begin")
    .action(act(start));
}

async function start(context: Context, { dryRun, ...flags }: StartFlags): Promise<ExitCode | Failure> {
  const { terminal, env } = context;
  const found = await settingsOfFlags(context, flags);
  if (isFailure(found)) return found;
  const { explainFollowing, follow, prepareFollowing } = await import("../follow.ts");
  const following = await prepareFollowing(found.settings);
  if (isFailure(following)) return following;
  if (dryRun === true) return explainFollowing(context, following);
  const { startRunner, tellSystemd } = await import("@plumule/runner");
  const runner = await startRunner(found.settings as RunnerOptions, { fetch, say: terminal.note });
  if ("refused" in runner) {
    const next = "`plumule runner config` shows what is set, and `plumule doctor` what is wrong.";
    return { exit: COMMAND_EXIT[runner.exit], what: `The runner does not start: ${runner.refused}`, next };
  }
  if (terminal.json) terminal.data({ runner: runner.id });
  const leaving = new AbortController();
  const follows =
    following === null || runner.desk === null
      ? null
      : follow({ ...following, desk: runner.desk, runner: runner.id }, { say: terminal.note, signal: leaving.signal });
  const stop = (): void => runner.stop();
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  process.on("SIGHUP", () => runner.leaveRuns());
  const systemd = tellSystemd(env, () => runner.status());
  const code = await runner.done;
  leaving.abort();
  await follows;
  systemd.leaving();
  const failure = LEFT[code];
  return failure === undefined ? COMMAND_EXIT[code] : { exit: COMMAND_EXIT[code], ...failure };
}

/** What `plumule` ends with for what its runner left with: codes of the command line mean the same for every verb. */
const COMMAND_EXIT: Readonly<Record<RunnerExit, ExitCode>> = {
  [RUNNER_EXIT.ok]: EXIT.ok,
  [RUNNER_EXIT.failed]: EXIT.failed,
  [RUNNER_EXIT.tryAgain]: EXIT.tryAgain,
  [RUNNER_EXIT.conflict]: EXIT.conflict,
  [RUNNER_EXIT.outdated]: EXIT.outdated,
  [RUNNER_EXIT.misconfigured]: EXIT.usage,
  [RUNNER_EXIT.refused]: EXIT.authentication,
};

/** What is said of a runner that left by itself. */
const LEFT: Partial<Record<RunnerExit, { what: string; next: string }>> = {
  [RUNNER_EXIT.outdated]: {
    what: "This runner is too old for the broker",
    next: "Update plumule on this machine, then start the runner again: its state is kept.",
  },
  [RUNNER_EXIT.refused]: {
    what: "The broker does not know this runner",
    next: "Register this key: `plumule runner token` where you have a token, then start with --registration.",
  },
};
