import { spawn } from "node:child_process";
import type { NixRun } from "../../runner/src/nix/run.ts";

/** Starts a process; a cancel interrupts it, as the runner does before it forces anything. */
export const spawnNix: NixRun = (argv, { cwd, env, signal, onStdout, onStderr }) => {
  const { promise, resolve, reject } = Promise.withResolvers<Awaited<ReturnType<NixRun>>>();
  const child = spawn(argv[0] ?? "", argv.slice(1), { cwd, env, stdio: ["ignore", "pipe", "pipe"] });
  const interrupt = (): void => void child.kill("SIGINT");
  signal?.addEventListener("abort", interrupt);
  if (signal?.aborted === true) interrupt();
  child.stdout.on("data", onStdout);
  child.stderr.on("data", onStderr);
  child.on("error", reject);
  child.on("close", (exitCode, exitSignal) => {
    signal?.removeEventListener("abort", interrupt);
    resolve({ exitCode, signal: exitSignal });
  });
  return promise;
};
