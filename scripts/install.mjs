// The npm packages: installed when they are missing or differ from the lock file, else left alone.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { machinePath, projectEnvironment, root, run } from "./child-process.mjs";
import { Problem } from "./problem.mjs";

/** TypeScript files run as they are from this version of Node on; the `node` package brings it. */
const nodeMajor = 24;

/**
 * Installs what the lock file says if `node_modules` is missing or stale, then makes sure that children get Node 24.
 * With everything in place it reads a few files and touches no network.
 *
 * @returns {Promise<void>}
 * @throws {Problem} when npm fails or Node 24 is missing afterwards
 */
export async function ensurePackages() {
  if (!installedAsLocked()) {
    console.log("plumule: installing npm packages (once)");
    // Not `npm ci`: it refuses a lock file that lacks an optional package for some other system, and not every
    // registry has all of those. `--no-save` keeps to the lock file and writes none.
    // Without install scripts there would be no Node 24, and without development packages nothing would run.
    const args = ["install", "--no-save", "--ignore-scripts=false", "--include=dev", "--no-fund", "--no-audit"];
    const code = await run("npm", [...args, "--loglevel=error"], { ...process.env, PATH: machinePath() });
    if (code !== 0) throw new Problem(`npm install ended with code ${code}; its own message is above.`);
    if (!installedAsLocked()) {
      throw new Problem("package.json and package-lock.json disagree; run `npm install` and commit what it changes.");
    }
  }
  if (majorOfProjectNode() < nodeMajor) {
    throw new Problem(
      `the install script of the "node" package did not run, so Node ${nodeMajor} is missing; ` +
        "run `npm rebuild node --ignore-scripts=false` and try again.",
    );
  }
}

/**
 * Whether what npm wrote down about `node_modules` says the same as the lock file, and the lock file the same
 * as each package.json. npm writes its note last, so an installation that was cut short does not count.
 *
 * @returns {boolean}
 */
function installedAsLocked() {
  const locked = readPackages("package-lock.json");
  const installed = readPackages(join("node_modules", ".package-lock.json"));
  if (!locked || !installed) return false;
  return Object.entries(locked).every(([folder, entry]) => {
    if (!folder.startsWith("node_modules/")) return declaresTheSame(folder, entry);
    const present = installed[folder];
    // Optional packages are for other systems and processors.
    return present ? present.version === entry.version && present.integrity === entry.integrity : entry.optional;
  });
}

/**
 * @param {string} folder of the root ("") or of a workspace
 * @param {Record<string, unknown>} entry what the lock file believes its package.json to say
 * @returns {boolean}
 */
function declaresTheSame(folder, entry) {
  const declared = JSON.parse(readFileSync(join(root, folder, "package.json"), "utf8"));
  return ["workspaces", "dependencies", "devDependencies"].every(
    (field) => JSON.stringify(declared[field] ?? null) === JSON.stringify(entry[field] ?? null),
  );
}

/**
 * @param {string} file a lock file of npm, relative to the root
 * @returns {Record<string, Record<string, unknown>> | undefined} its packages by folder; undefined if there is no such file
 */
function readPackages(file) {
  try {
    return JSON.parse(readFileSync(join(root, file), "utf8")).packages;
  } catch (error) {
    if (error.code === "ENOENT") return undefined;
    throw error;
  }
}

/** @returns {number} major version of the Node that children of this script get, 0 if there is none */
function majorOfProjectNode() {
  try {
    return Number.parseInt(execFileSync("node", ["--version"], { env: projectEnvironment() }).toString().slice(1), 10);
  } catch {
    return 0;
  }
}
