// Running a command in the foreground for somebody who may press Ctrl-C.

import { spawn } from "node:child_process";
import { constants } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";

/** Absolute path of the repository's root; every command runs there, wherever the person stood. */
export const root = fileURLToPath(new URL("..", import.meta.url)).replace(/\/$/, "");

/** One Ctrl-C reaches us up to twice: from the terminal and again from npm. Within this window both are one. */
const sameSignalWindowMs = 500;

/** The binaries that the npm packages bring, the Node of the `node` package among them. */
const ownBinaries = join(root, "node_modules", ".bin");

/**
 * The PATH without the repository's own binaries. npm must run on the machine's Node: it replaces
 * packages in `node_modules`, and with them the Node that it would be running on.
 *
 * @returns {string}
 */
export function machinePath() {
  const folders = (process.env.PATH ?? "").split(delimiter);
  return folders.filter((folder) => folder !== "" && !folder.startsWith(join(root, "node_modules"))).join(delimiter);
}

/**
 * Environment of everything that runs after the installation: the repository's Node first on PATH, and a
 * wrangler that neither asks for updates, nor sends metrics, nor writes logs outside the repository.
 *
 * @returns {NodeJS.ProcessEnv}
 */
export function projectEnvironment() {
  return {
    ...process.env,
    PATH: [ownBinaries, machinePath()].join(delimiter),
    WRANGLER_HIDE_BANNER: "true",
    WRANGLER_SEND_METRICS: "false",
    WRANGLER_WRITE_LOGS: "false",
  };
}

/**
 * Runs a command in the repository's root with this terminal's output and no input, passes signals on, and
 * waits for its end.
 *
 * The child gets a process group of its own: otherwise a Ctrl-C would reach it once from the terminal and
 * once from here, and a runner takes the second signal as "do not wait for the running jobs".
 *
 * @param {string} command
 * @param {readonly string[]} args
 * @param {NodeJS.ProcessEnv} [env]
 * @returns {Promise<number>} the exit code; 128 plus the signal's number after a signal, 127 when it cannot start
 */
export function run(command, args, env = projectEnvironment()) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, env, stdio: ["ignore", "inherit", "inherit"], detached: true });
    let passedOn = { signal: "", at: 0 };
    const passOn = (/** @type {NodeJS.Signals} */ signal) => {
      const at = Date.now();
      if (signal === passedOn.signal && at - passedOn.at < sameSignalWindowMs) return;
      passedOn = { signal, at };
      child.kill(signal);
    };
    /** @type {NodeJS.Signals[]} */
    const signals = ["SIGINT", "SIGTERM", "SIGHUP"];
    for (const signal of signals) process.on(signal, passOn);
    const finish = (/** @type {number} */ code) => {
      for (const signal of signals) process.off(signal, passOn);
      resolve(code);
    };
    child.on("error", (error) => {
      console.error(`plumule: ${command} could not be started: ${error.message}`);
      finish(127);
    });
    child.on("close", (code, signal) => finish(code ?? 128 + (signal ? constants.signals[signal] : 0)));
  });
}
