import { lstatSync, readlinkSync } from "node:fs";
import { findExecutable } from "../executable.ts";
import type { RunnerIsolationLevel } from "../isolation.ts";
import { INSIDE } from "./environment.ts";

/**
 * The levels that a sandbox needs around it: a namespace of processes that ends as a whole. The sandbox itself hides files; it leaves processes to
 * the level, so that these are stopped, counted and proved gone like those of any other job.
 */
const LEVELS: readonly RunnerIsolationLevel[] = ["bwrap", "userns"];

/** What an effect sees. Paths are those outside; what is null is not there. */
export type Sandbox = {
  /** The folder of the Nix store. */
  store: string;
  /** A folder for `/etc`, which belongs to the effect. */
  etc: string;
  /** Opened secrets as a folder and as one file. */
  secrets: { folder: string; hercules: string } | null;
  configuration: string | null;
  /** The checkout, which belongs to the effect too, and folders that its repository borrows objects from. */
  checkout: { path: string; borrows: readonly string[] } | null;
  /** Small files by their paths inside, with the files outside that hold them. */
  files: Readonly<Record<string, string>>;
  env: Readonly<Record<string, string>>;
  uid: number;
  gid: number;
  cwd: string;
};

/** Why no effect can be kept in a sandbox at a level, or null. Whether it works only trying it says. */
export function sandboxFault(level: RunnerIsolationLevel): string | null {
  if (!LEVELS.includes(level)) return `the isolation level ${level} keeps no sandbox`;
  return tool("bwrap") === null ? "no bwrap in PATH (install bubblewrap)" : null;
}

/**
 * The command that runs another one in the sandbox of an effect: files as for hercules-ci-agent and buildbot-nix, the network of the machine, users
 * and a host name of its own. Nothing of the machine's disk is in it but the store, programs of the system, and what is named.
 */
export function sandboxCommand(sandbox: Sandbox, argv: readonly string[]): string[] {
  const { store, etc, secrets, configuration, checkout, files, env } = sandbox;
  const read = (from: string, to: string): string[] => ["--ro-bind", from, to];
  const shared = (path: string): string[] => ["--ro-bind-try", path, path];
  const options = [
    ["--unshare-user-try", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--clearenv"],
    // The level's own: it shows the processes of this run alone.
    ["--bind", "/proc", "/proc"],
    ["--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/run", "--tmpfs", INSIDE.build],
    ...["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"].map(systemFolder),
    shared("/run/current-system"),
    read(store, store),
    shared("/nix/var/nix/daemon-socket"),
    ["--bind", etc, "/etc"],
    ...["resolv.conf", "hosts", "ssl", "static", "pki"].map((name) => shared(`/etc/${name}`)),
    ...(secrets === null
      ? []
      : [
          read(secrets.folder, INSIDE.secrets),
          read(secrets.hercules, INSIDE.secretsJson),
          read(secrets.hercules, INSIDE.agentSecretsJson),
        ]),
    ...(configuration === null ? [] : [read(configuration, INSIDE.configuration)]),
    ...(checkout === null ? [] : [["--bind", checkout.path, INSIDE.checkout], ...checkout.borrows.map(shared)]),
    ...Object.entries(files).map(([inside, outside]) => read(outside, inside)),
    ["--uid", String(sandbox.uid), "--gid", String(sandbox.gid), "--hostname", "hercules-ci", "--chdir", sandbox.cwd],
    ...Object.entries(env).map(([name, value]) => ["--setenv", name, value]),
  ].flat();
  const shell = tool("sh") ?? "sh";
  return [shell, "-c", 'umask 077; exec "$@"', "sh", tool("bwrap") ?? "bwrap", ...options, "--", ...argv];
}

/** A folder of programs as it is on this machine: a link into `/usr`, a folder, or nothing. */
function systemFolder(path: string): string[] {
  try {
    return lstatSync(path).isSymbolicLink() ? ["--symlink", readlinkSync(path), path] : ["--ro-bind", path, path];
  } catch {
    return [];
  }
}

function tool(name: string): string | null {
  return findExecutable(name, process.env["PATH"] ?? "", "/");
}
