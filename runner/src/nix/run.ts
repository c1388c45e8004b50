/** How a process that {@link NixRun} started ended. Exactly one of the two is set. */
export interface NixExit {
  readonly exitCode: number | null;
  readonly signal: string | null;
}

/** What a process gets from its caller. `env` is the complete environment, not an addition to the runner's own. */
export interface NixRunOptions {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  /** Aborting asks the process to stop: interrupt Nix first and kill only after a grace, or its builders survive it. */
  readonly signal?: AbortSignal;
  readonly onStdout: (chunk: Uint8Array) => void;
  readonly onStderr: (chunk: Uint8Array) => void;
}

/**
 * Starts `argv[0]` with the other elements as arguments, standard input closed, and resolves when it has ended and its
 * output is drained. Rejects only when the process cannot be started. The caller owns processes: sandbox, cgroup, cancel.
 */
export type NixRun = (argv: readonly string[], options: NixRunOptions) => Promise<NixExit>;

/** Where and how commands of Nix run for one job. */
export interface NixContext {
  readonly run: NixRun;
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** Output of a command that was read to its end. */
export interface Captured extends NixExit {
  readonly stdout: string;
  readonly stderr: string;
}

/** Most bytes of one stream that {@link capture} keeps: the derivations of a whole system fit, a flood does not. */
export const CAPTURE_LIMIT_BYTES = 256 * 1024 * 1024;

/** Turns the new command line and flakes on for one call, whatever nix.conf says. */
export const NEW_COMMANDS: readonly string[] = ["--extra-experimental-features", "nix-command flakes"];

/**
 * Runs a command and keeps what it printed; `listen` sees the chunks as they come. A stream beyond
 * {@link CAPTURE_LIMIT_BYTES} is an error, because cut JSON or a cut list of paths would be read as another answer.
 */
export async function capture(
  context: NixContext,
  argv: readonly string[],
  listen: Partial<Pick<NixRunOptions, "onStdout" | "onStderr">> = {},
): Promise<Captured> {
  const stdout = collect(argv);
  const stderr = collect(argv);
  const exit = await context.run(argv, {
    cwd: context.cwd,
    env: quietEnvironment(context.env),
    ...(context.signal === undefined ? {} : { signal: context.signal }),
    onStdout: (chunk) => {
      stdout.add(chunk);
      listen.onStdout?.(chunk);
    },
    onStderr: (chunk) => {
      stderr.add(chunk);
      listen.onStderr?.(chunk);
    },
  });
  return { ...exit, stdout: stdout.text(), stderr: stderr.text() };
}

/** Like {@link capture}, for commands that fail only when Nix is broken: then it throws, unless the caller aborted. */
export async function captureOk(context: NixContext, argv: readonly string[]): Promise<Captured> {
  const done = await capture(context, argv);
  if (done.exitCode === 0 || context.signal?.aborted === true) return done;
  const how = done.signal ?? `exit code ${done.exitCode}`;
  throw new Error(`${argv.slice(0, 2).join(" ")} ended with ${how}: ${done.stderr.slice(-2000)}`);
}

/** The environment without `IN_SYSTEMD`, under which Nix 2.8 puts `<3>` before every line. */
export function quietEnvironment(env: Readonly<Record<string, string>>): Record<string, string> {
  const { IN_SYSTEMD: _, ...rest } = env;
  return rest;
}

function collect(argv: readonly string[]): { add: (chunk: Uint8Array) => void; text: () => string } {
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  return {
    add: (chunk) => {
      sizeBytes += chunk.length;
      if (sizeBytes <= CAPTURE_LIMIT_BYTES) chunks.push(chunk);
    },
    text: () => {
      if (sizeBytes > CAPTURE_LIMIT_BYTES) {
        throw new Error(`${argv.slice(0, 2).join(" ")} printed more than ${CAPTURE_LIMIT_BYTES} bytes`);
      }
      return new TextDecoder().decode(Buffer.concat(chunks));
    },
  };
}
