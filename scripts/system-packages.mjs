// What plumule needs from the operating system: looked for on PATH, installed if the machine lets us.

import { execFileSync, spawnSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { Problem } from "./problem.mjs";

/**
 * @typedef {object} Tool
 * @property {string} name as people call it
 * @property {readonly (readonly string[])[]} commands each group is satisfied by any one of its commands
 * @property {string} use what is missed without it
 * @property {Readonly<Record<string, string>>} packages its packages by package manager, with spaces between
 */

/** @type {Tool} */
export const nix = {
  name: "Nix",
  commands: [["nix"], ["nix-build"], ["nix-store"]],
  use: "every job that builds",
  packages: { "apt-get": "nix-bin", dnf: "nix", apk: "nix", pacman: "nix" },
};

/** @type {Tool} */
export const chromium = {
  name: "Chromium",
  commands: [["chromium", "chromium-browser", "google-chrome"]],
  use: "what tests the page in a browser",
  packages: { "apt-get": "chromium", dnf: "chromium", apk: "chromium", pacman: "chromium" },
};

/** @type {Tool} */
export const bubblewrap = {
  name: "bubblewrap",
  commands: [["bwrap"]],
  use: "what tests sandboxed jobs",
  packages: { "apt-get": "bubblewrap", dnf: "bubblewrap", apk: "bubblewrap", pacman: "bubblewrap" },
};

/** With runc: what podman brings by itself does not start where cgroups are of both versions, as in many containers. @type {Tool} */
export const podman = {
  name: "podman",
  commands: [["podman"]],
  use: "what tests jobs and workspaces in containers",
  packages: { "apt-get": "podman runc", dnf: "podman runc", apk: "podman runc", pacman: "podman runc" },
};

/** @type {Tool} */
export const openssh = {
  name: "OpenSSH",
  commands: [["ssh-agent"], ["ssh-add"], ["ssh-keygen"]],
  use: "what tests keys in an ssh-agent",
  packages: { "apt-get": "openssh-client", dnf: "openssh-clients", apk: "openssh-client", pacman: "openssh" },
};

/** @type {Tool} */
export const openssl = {
  name: "OpenSSL",
  commands: [["openssl"]],
  use: "what checks signatures with openssl alone",
  packages: { "apt-get": "openssl", dnf: "openssl", apk: "openssl", pacman: "openssl" },
};

/** @type {Tool} */
export const natsServer = {
  name: "nats-server",
  commands: [["nats-server"]],
  use: "what tests workspaces over NATS",
  packages: { "apt-get": "nats-server", dnf: "nats-server", apk: "nats-server", pacman: "nats-server" },
};

/** How each package manager installs a package without asking, and how it learns what packages there are. */
const managers = {
  "apt-get": {
    // Another apt may be at work on a machine that has just started; wait for it for a minute.
    install: ["install", "--yes", "--no-install-recommends", "--option=DPkg::Lock::Timeout=60"],
    refresh: ["update"],
  },
  dnf: { install: ["install", "--assumeyes", "--quiet"], refresh: ["makecache", "--quiet"] },
  apk: { install: ["add", "--quiet"], refresh: ["update", "--quiet"] },
  pacman: { install: ["--sync", "--noconfirm", "--needed"], refresh: ["--sync", "--refresh"] },
};

/**
 * Makes sure that tools are there. What is there is not touched, and then nothing is started at all.
 *
 * @param {readonly Tool[]} required
 * @param {readonly Tool[]} optional missing ones cost a sentence, not the command
 * @returns {void}
 * @throws {Problem} naming the required tools that are missing and cannot be installed
 */
export function ensureTools(required, optional) {
  if ([...required, ...optional].every(isPresent)) return;
  const install = findInstaller();
  const isAbsent = (/** @type {Tool} */ tool) => !isPresent(tool) && !install?.(tool);
  const needed = required.filter(isAbsent).map((tool) => tool.name);
  if (needed.length > 0) throw new Problem(`please install ${needed.join(" and ")} and try again.`);
  for (const tool of optional.filter(isAbsent)) {
    console.log(`plumule: ${tool.name} is missing and could not be installed, so ${tool.use} cannot run.`);
  }
}

/**
 * @param {Tool} tool
 * @returns {boolean} whether its commands can be run
 */
function isPresent(tool) {
  return tool.commands.every((group) => group.some(isOnPath));
}

/**
 * @param {string} command
 * @returns {boolean}
 */
export function isOnPath(command) {
  return (process.env.PATH ?? "").split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, command), constants.X_OK);
      return folder !== "";
    } catch {
      return false;
    }
  });
}

/**
 * @returns {((tool: Tool) => boolean) | undefined} installs one tool and says whether it is there now; undefined
 *   without a package manager that is known or without the right to use it
 */
function findInstaller() {
  const manager = Object.keys(managers).find(isOnPath);
  const asRoot = rootPrefix();
  if (!manager || !asRoot) return undefined;
  const { install, refresh } = managers[manager];
  let refreshed = false;
  /** @param {readonly string[]} args */
  const succeeds = (...args) => {
    const [command = manager, ...rest] = [...asRoot, manager, ...args];
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
    return spawnSync(command, rest, { stdio: "ignore", env }).status === 0;
  };
  return (tool) => {
    console.log(`plumule: installing ${tool.name} with ${manager} (once)`);
    const added = [...install, ...(tool.packages[manager]?.split(" ") ?? [])];
    if (succeeds(...added)) return isPresent(tool);
    // A fresh image often has no list of packages yet, or one that names versions that are gone.
    if (refreshed) return false;
    refreshed = true;
    return succeeds(...refresh) && succeeds(...added) && isPresent(tool);
  };
}

/** @returns {readonly string[] | undefined} what to put before a command to run it as root without a question */
function rootPrefix() {
  if (process.getuid?.() === 0) return [];
  try {
    execFileSync("sudo", ["--non-interactive", "true"], { stdio: "ignore" });
    return ["sudo", "--non-interactive"];
  } catch {
    return undefined;
  }
}
