import type { Command } from "commander";
import { type Connection, connectTo, findPlace } from "./connection.ts";
import { type Failure, isFailure } from "./failure.ts";
import { createTerminal, printFailure, type Terminal } from "./print.ts";

/** What a command has of the world. */
export type Context = {
  terminal: Terminal;
  cwd: string;
  env: Readonly<Record<string, string | undefined>>;
  /** The flags that every command has. */
  globals: Globals;
  /** Finds the broker; only commands that need one ask. */
  connect: () => Promise<Connection | Failure>;
};

/** Flags that every command has. */
export type Globals = { url?: string; namespace?: string; token?: string; json?: boolean };

/**
 * Makes a command's handler into commander's action: it gets the context first, then the arguments and the flags. What it returns is
 * the exit code, one of `EXIT` unless the verb says otherwise; a failure is printed.
 */
export function act<Arguments extends unknown[]>(
  handle: (context: Context, ...args: Arguments) => Promise<number | Failure>,
): (...args: [...Arguments, Command]) => Promise<void> {
  return async (...args) => {
    const command = args.at(-1) as Command;
    const flags = command.optsWithGlobals<Globals>();
    const { env, stdout, stderr } = process;
    const terminal = createTerminal({ stdout, stderr, env, json: flags.json === true });
    const cwd = process.cwd();
    const connect = async (): Promise<Connection | Failure> => {
      const place = await findPlace({ flags, env, cwd });
      return isFailure(place) ? place : connectTo(place);
    };
    const end = await handle({ terminal, cwd, env, globals: flags, connect }, ...(args.slice(0, -1) as Arguments));
    if (isFailure(end)) printFailure(terminal, end);
    process.exitCode = isFailure(end) ? end.exit : end;
  };
}
