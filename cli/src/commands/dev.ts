import { resolve } from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { act, type Context } from "../context.ts";
import { type Instance, startInstance } from "../dev/instance.ts";
import { LOCAL_NAMESPACE } from "../dev/local-namespace.ts";
import { buildPage } from "../dev/page.ts";
import { aborted, takeSignals } from "../dev/signals.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, misuse } from "../failure.ts";
import { paint, shortKey, type Terminal } from "../print.ts";

type DevFlags = { port: number; host: string; state: string; runner: boolean };

/** What a running job gets to end when the person leaves, ms; then it is killed. It begins again with the next start. */
const GRACE_MS = 10_000;

/** `plumule dev`: broker, page and one runner on this machine, until Ctrl-C. */
export function devCommand(): Command {
  return new Command("dev")
    .summary("start broker, page and one runner on this machine")
    .description(
      "Starts a broker, its page and one runner on this machine, and keeps what they know in a folder. Ctrl-C ends them.",
    )
    .option("--port <number>", "port of broker and page; 0 takes a free one", parsePort, 8787)
    .option("--host <address>", "address to listen on", "127.0.0.1")
    .option("--state <folder>", "where everything is kept", ".plumule")
    .option("--no-runner", "start no runner")
    .action(act(dev));
}

async function dev({ terminal, cwd }: Context, { port, host, state, runner }: DevFlags): Promise<ExitCode | Failure> {
  const signals = takeSignals();
  const stateDir = resolve(cwd, state);
  const say = (who: string, line: string): void => {
    if (!terminal.json) terminal.note(`${paint.quiet(who.padEnd(8))}${line}`);
  };
  await buildPage();
  const instance = await startInstance({ port, host, stateDir, runner }, say);
  if ("refused" in instance) {
    signals.close();
    return misuse(instance.refused, "`plumule dev --help` lists what can be chosen.");
  }
  announce(terminal, instance, stateDir);
  void instance.runner?.done.then((code) => {
    if (!signals.leave.aborted)
      say("runner", `ended with code ${code}; the broker goes on. Start again for another runner.`);
  });
  const isAlone = await Promise.race([aborted(signals.leave).then(() => false), instance.broker.done.then(() => true)]);
  if (isAlone) say("broker", "ended by itself");
  else say("plumule", "ending; running jobs begin again with the next start (Ctrl-C: wait no longer)");
  await instance.stop(isAlone ? 0 : GRACE_MS, signals.hurry);
  signals.close();
  return isAlone ? EXIT.failed : EXIT.ok;
}

function announce(terminal: Terminal, { url, runner }: Instance, stateDir: string): void {
  if (terminal.json)
    return terminal.data({
      url,
      namespace: LOCAL_NAMESPACE,
      state: stateDir,
      pid: process.pid,
      runner: runner?.id ?? null,
    });
  const lines = [
    ["plumule", paint.strong(url.replace("//127.0.0.1:", "//localhost:"))],
    ["state", stateDir],
    ["runner", runner === null ? "none (--no-runner)" : `${shortKey(runner.id)}, process ${runner.pid}`],
    ["next", "in another terminal, in this folder:  npx plumule submit hello --shell 'echo hello' --wait"],
    ["", "Ctrl-C ends broker and runner; the state stays"],
  ] as const;
  for (const [name, text] of lines) terminal.out(`${paint.quiet(name.padEnd(8))}${text}`);
}

function parsePort(text: string): number {
  const port = Number(text);
  if (!/^\d{1,5}$/.test(text) || port > 65_535) throw new InvalidArgumentError("A port is 0 to 65535.");
  return port;
}
