import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { privateStore, probeNix } from "../../runner/src/nix/probe.ts";
import type { NixRun } from "../../runner/src/nix/run.ts";

/** A folder with a Nix store of its own, the variables that make Nix use it, and this machine's system. */
export type NixPlace = { home: string; env: Record<string, string>; system: string; remove: () => void };

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

/** Makes a place for Nix. Rejects on a machine without it. */
export async function nixPlace(): Promise<NixPlace> {
  const home = mkdtempSync(join(tmpdir(), "plumule-nix-"));
  const env = { PATH: process.env["PATH"] ?? "", ...(await privateStore(join(home, "nix"))) };
  const probe = await probeNix({ run: spawnNix, cwd: home, env });
  if (!probe.present) throw new Error(`these tests need Nix (on Debian: apt-get install nix-bin): ${probe.why}`);
  return {
    home,
    env,
    system: probe.system,
    remove() {
      // Nix takes the right to write away from what it stores.
      execFileSync("chmod", ["-R", "u+w", home]);
      rmSync(home, { recursive: true });
    },
  };
}
