// The door to every npm script. It runs on a machine that has Node 20, npm and git and nothing of the project yet:
// it brings what is missing, then hands over. Plain JavaScript, and nothing but Node's own modules, for that reason.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { check } from "./check.mjs";
import { root, run } from "./child-process.mjs";
import { ensurePackages } from "./install.mjs";
import { Problem } from "./problem.mjs";
import { ensureRadicle } from "./radicle.mjs";
import {
  bubblewrap,
  chromium,
  ensureTools,
  isOnPath,
  natsServer,
  nix,
  openssh,
  openssl,
  podman,
} from "./system-packages.mjs";

const oldestNodeMajor = 20;

/**
 * @typedef {object} Command
 * @property {Parameters<typeof ensureTools>[0]} required tools of the system without which it makes no sense
 * @property {Parameters<typeof ensureTools>[1]} optional tools of the system that it can do without
 * @property {(args: readonly string[]) => Promise<number>} start runs it; resolves to the exit code
 */

/** @type {Readonly<Record<string, Command>>} */
const commands = {
  demo: { required: [nix], optional: [], start: (args) => run("node", ["cli/src/main.ts", "demo", ...args]) },
  start: { required: [], optional: [nix], start: (args) => run("node", ["cli/src/main.ts", "dev", ...args]) },
  test: { required: [nix], optional: [chromium, bubblewrap, podman, openssh, openssl, natsServer], start: test },
  "test:radicle": { required: [nix], optional: [], start: testRadicle },
  "test:vm": { required: [], optional: [], start: (args) => run("node", ["test/vm/main.ts", ...args]) },
  check: { required: [], optional: [], start: check },
  bench: { required: [], optional: [], start: (args) => run("node", ["bench/main.ts", ...args]) },
  "bench:runner": {
    required: [],
    optional: [bubblewrap],
    start: (args) => run("node", ["bench/runner/main.ts", ...args]),
  },
  chaos: { required: [], optional: [nix, bubblewrap], start: (args) => run("node", ["test/chaos/main.ts", ...args]) },
  simulate: { required: [], optional: [], start: (args) => run("node", ["test/simulation/main.ts", ...args]) },
  fuzz: { required: [], optional: [], start: fuzz },
  model: {
    required: [],
    optional: [],
    start: (args) => run("node", ["--max-old-space-size=8192", "test/model/main.ts", ...args]),
  },
};

/**
 * Builds the page, if there is a page to build, and runs every test, or those that the arguments name.
 *
 * @param {readonly string[]} args passed on to vitest
 * @returns {Promise<number>}
 */
async function test(args) {
  const pageBuild = "scripts/page.mjs";
  if (existsSync(join(root, pageBuild))) {
    const code = await run("node", [pageBuild]);
    if (code !== 0) return code;
  }
  return run("vitest", ["run", "--reporter=default", "--reporter=./scripts/plain-reporter.mjs", ...args]);
}

/**
 * Runs the tests with real Radicle nodes. Programs of Radicle that are not on PATH are built with cargo into `.plumule/radicle`, once.
 *
 * @param {readonly string[]} args passed on to vitest
 * @returns {Promise<number>}
 */
async function testRadicle(args) {
  await ensureRadicle();
  process.env.PLUMULE_TEST_RADICLE = "1";
  return run("vitest", ["run", "--project", "radicle", ...args]);
}

/** Cases of a long run of the fuzz tests; `npm test` tries a few thousand. */
const fuzzCases = "100000";

/**
 * Runs the fuzz tests for long. PLUMULE_FUZZ_CASES says how many cases, PLUMULE_FUZZ_SEED repeats those of a failure.
 *
 * @param {readonly string[]} args passed on to vitest
 * @returns {Promise<number>}
 */
function fuzz(args) {
  process.env.PLUMULE_FUZZ_CASES ??= fuzzCases;
  return run("vitest", ["run", "--project", "unit", "--project", "workers", "fuzz", ...args]);
}

/** @throws {Problem} when the machine lacks what cannot be installed from here */
function assertMachine() {
  const major = Number.parseInt(process.versions.node, 10);
  if (major < oldestNodeMajor) {
    throw new Problem(
      `this needs Node ${oldestNodeMajor} or newer and found ${process.versions.node}; please install a newer one.`,
    );
  }
  for (const command of ["git", "npm"]) {
    if (!isOnPath(command)) throw new Problem(`please install ${command} and try again.`);
  }
}

/**
 * @param {readonly string[]} argv
 * @returns {Promise<number>} exit code
 */
async function main([name = "", ...args]) {
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (!command) {
    console.error(`plumule: usage: node scripts/bootstrap.mjs <${Object.keys(commands).join("|")}> [arguments]`);
    return 2;
  }
  assertMachine();
  ensureTools(command.required, command.optional);
  await ensurePackages();
  return command.start(args);
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof Problem)) throw error;
  console.error(`plumule: ${error.message}`);
  process.exitCode = 1;
}
