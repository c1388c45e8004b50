import { realpathSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findExecutable } from "../executable.ts";
import type { RunnerIsolationLevel } from "../isolation.ts";
import type { NixContext } from "../nix/run.ts";
import { sandboxCommand, sandboxFault } from "./sandbox.ts";

/** Tries the sandbox of effects with a program that does nothing. Why it does not work here, or null; `context` runs its commands at the level. */
export async function probeEffects(level: RunnerIsolationLevel, { run, cwd, env }: NixContext): Promise<string | null> {
  const fault = sandboxFault(level);
  if (fault !== null) return fault;
  const etc = await mkdtemp(join(tmpdir(), "plumule-etc-"));
  const shell = realpathSync(findExecutable("sh", process.env["PATH"] ?? "", "/") ?? "/bin/sh");
  const store = env["NIX_STORE_DIR"] ?? "/nix/store";
  const none = { secrets: null, configuration: null, checkout: null, files: {}, env: {} };
  const command = sandboxCommand({ ...none, store, etc, uid: 0, gid: 0, cwd: "/" }, [shell, "-c", "exit 42"]);
  let said = "";
  const exit = await run(command, { cwd, env, onStdout: () => {}, onStderr: (chunk) => (said += String(chunk)) });
  await rm(etc, { recursive: true, force: true });
  return exit.exitCode === 42 ? null : said.trim().slice(0, 300) || `exit code ${exit.exitCode}`;
}
