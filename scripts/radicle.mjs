// The programs of Radicle that the tests with real nodes start: those on PATH, else ones that cargo builds, once.

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { delimiter, join } from "node:path";
import { root, run } from "./child-process.mjs";
import { Problem } from "./problem.mjs";
import { isOnPath } from "./system-packages.mjs";

/** Each program, and the crate that brings it. docs/radicle.md names the same versions. */
const programs = [
  { program: "rad", crate: "radicle-cli", version: "0.23.0" },
  { program: "radicle-node", crate: "radicle-node", version: "0.21.1" },
  { program: "git-remote-rad", crate: "radicle-remote-helper", version: "0.18.1" },
  { program: "rad-job", crate: "radicle-job", version: "0.6.0" },
  { program: "cib", crate: "radicle-ci-broker", version: "0.32.1" },
  // The newest one that is published as a crate; later ones come with radicle-explorer. One test needs it, and is skipped without it.
  { program: "radicle-httpd", crate: "radicle-httpd", version: "0.10.0", isOptional: true },
];
/** The newest Rust that one of these crates asks for, as `1.<minor>`. */
const oldestRustMinor = 90;

/** Where cargo puts what it builds; git ignores it. */
const folder = join(root, ".plumule", "radicle");
/** What cargo leaves behind while it builds: shared by the crates, which have most of their dependencies in common, and by a second attempt. */
const buildFolder = join(folder, "build");

/**
 * Makes sure that every program of Radicle can be found on PATH. One that was built for another version is built anew.
 *
 * @returns {Promise<void>}
 * @throws {Problem} naming what is missing and cannot be built
 */
export async function ensureRadicle() {
  const absent = programs.filter(({ program }) => !isOnPath(program));
  process.env.PATH = [process.env.PATH, join(folder, "bin")].join(delimiter);
  const due = absent.filter((one) => !isBuilt(one));
  if (due.length === 0 || (due.every(({ isOptional }) => isOptional) && !isOnPath("cargo"))) return;
  assertRust(due.map(({ program }) => program));
  console.log(
    `plumule: building ${due.map(({ program }) => program).join(", ")} with cargo (once; takes a quarter of an hour or more)`,
  );
  for (const { crate, version, program } of due) {
    const args = ["install", "--locked", "--root", folder, "--target-dir", buildFolder, "--bin", program];
    // They work for seconds here, so that making them fast would take longer than it could win.
    const env = { ...process.env, CARGO_PROFILE_RELEASE_OPT_LEVEL: "0" };
    const code = await run("cargo", [...args, `${crate}@${version}`], env);
    if (code !== 0)
      throw new Problem(
        `cargo could not build ${crate} ${version}; its own message is above. What it has built is kept.`,
      );
  }
  rmSync(buildFolder, { recursive: true, force: true });
}

/**
 * Reads the list that cargo keeps of what it has installed below a root.
 *
 * @param {(typeof programs)[number]} one
 * @returns {boolean} whether it was built in its version
 */
function isBuilt({ program, crate, version }) {
  const list = join(folder, ".crates.toml");
  return (
    existsSync(join(folder, "bin", program)) &&
    existsSync(list) &&
    readFileSync(list, "utf8").includes(`"${crate} ${version} `)
  );
}

/**
 * @param {readonly string[]} due programs that it is needed for
 * @returns {void}
 * @throws {Problem} when there is no cargo, or its compiler is too old
 */
function assertRust(due) {
  const needs = `Rust 1.${oldestRustMinor} or newer, with cargo,`;
  const next = `install Radicle, or ${needs} and try again.`;
  if (!isOnPath("cargo") || !isOnPath("rustc"))
    throw new Problem(`not on PATH: ${due.join(", ")}; without cargo nothing can be built: ${next}`);
  const version = execFileSync("rustc", ["--version"], { encoding: "utf8" });
  const minor = /^rustc 1\.(\d+)\./.exec(version)?.[1];
  if (minor !== undefined && Number(minor) < oldestRustMinor)
    throw new Problem(`not on PATH: ${due.join(", ")}; ${version.trim()} is too old to build what is missing: ${next}`);
}
