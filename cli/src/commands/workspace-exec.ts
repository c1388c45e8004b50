import { commandEnd, isWorkspaceRefusal, type OutputStream } from "@plumule/runner";
import { Command, InvalidArgumentError } from "commander";
import { act, type Context } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { type Failure, isFailure, misuse } from "../failure.ts";
import { collectPairs } from "../flags.ts";
import { durationOf } from "../times.ts";
import { failureOfWorkspace, findWorkspace, type WhichFlags, withWhichFlags } from "../workspaces.ts";

type ExecFlags = WhichFlags & { env?: Record<string, string>; workingDir?: string; timeout?: number; stdin?: boolean };

/** `plumule workspace exec`. */
export function execCommand(): Command {
  return withWhichFlags(
    new Command("exec")
      .summary("run a command in a workspace")
      .usage(
        "[options] <id> -- <command> [arguments...]\n       plumule workspace exec -w config.json -- <command> [arguments...]",
      )
      .description(
        "Runs a program with its arguments; for a line of shell, `-- bash -c 'make && make test'`. What it prints goes where it printed it, and its exit code is ours: 124 when --timeout is over, 125 when it never ran. Ctrl-C stops it and everything that it started; the second Ctrl-C at once.",
      )
      .argument("<words...>", "the workspace, unless -w names it, then the command")
      .option("-i, --stdin", "pass standard input on")
      .option("--working-dir <path>", "folder to start in, from the root of the workspace")
      .option("--env <name=value>", "a variable; may be repeated", collectPairs)
      .option("--timeout <time>", "the longest run: 90s, 30m, 2h", timeOf),
  ).action(act(execute));
}

function timeOf(text: string): number {
  const ms = durationOf(text);
  if (ms === null || ms === 0) throw new InvalidArgumentError("Give it as 90s, 30m or 2h.");
  return ms;
}

async function execute(context: Context, words: string[], flags: ExecFlags): Promise<number | Failure> {
  const { terminal } = context;
  const isNamed = flags.workspaceConfigPath !== undefined;
  const [id, command] = isNamed ? [undefined, words] : [words[0], words.slice(1)];
  if (command.length === 0) return misuse("No command is given", "`plumule workspace exec ID -- make test`");
  const found = await findWorkspace(id, flags, context);
  if (isFailure(found)) return { ...found, exit: EXIT.neverRan };
  const { env, workingDir: cwd, timeout: timeoutMs } = flags;
  const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder(), merged: new TextDecoder() };
  const pass = (chunk: Uint8Array, stream: OutputStream): void | Promise<void> => {
    if (!terminal.json) return write(stream === "stderr" ? process.stderr : process.stdout, chunk);
    terminal.data({ event: "output", stream, text: decoders[stream].decode(chunk, { stream: true }) });
  };
  const ended = await found.workspace.exec({
    command,
    merged: false,
    onOutput: pass,
    ...stopOnSignals(),
    ...(env === undefined ? {} : { env }),
    ...(cwd === undefined ? {} : { cwd }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(flags.stdin === true ? { stdin: process.stdin } : {}),
  });
  if (isWorkspaceRefusal(ended)) return { ...failureOfWorkspace(ended), exit: EXIT.neverRan };
  const end = commandEnd(ended);
  if (terminal.json) terminal.data({ event: "exit", ...end });
  return ended.reason === "cancelled" ? EXIT.interrupted : end.exit_code;
}

/** The first signal lets the command end itself, the second ends it. */
function stopOnSignals(): { cancel: AbortSignal; kill: AbortSignal } {
  const [cancel, kill] = [new AbortController(), new AbortController()];
  const stop = (): void => (cancel.signal.aborted ? kill : cancel).abort();
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  return { cancel: cancel.signal, kill: kill.signal };
}

/** Writes; when whoever reads is slow, the command waits for them. */
function write(stream: NodeJS.WriteStream, chunk: Uint8Array): void | Promise<void> {
  if (!stream.write(chunk)) return new Promise((resolve) => stream.once("drain", resolve));
}
