import { execFile } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { promisify } from "node:util";
import type { CobRun } from "@plumule/bridge";
import { didKeyOf } from "@plumule/protocol";
import { createKey } from "@plumule/runner";
import { flakeText, type Season } from "./flake.ts";

const run = promisify(execFile);

/** A repository that tells the broker of pushes, and a clone of it in which somebody works. */
export type Garden = {
  /** The folder of the clone. */
  clone: string;
  /** The key whose signatures on pushes the broker is to believe. */
  hookKey: string;
  /** What pushes go to, for people. */
  described: string;
  /** What one types to push. */
  command: string;
  /** Writes the flake of a season and commits it; answers the commit's id. */
  commit(message: string, season: Season): Promise<string>;
  /** Pushes a commit; answers the lines of what tells the broker of it. */
  push(commit: string): Promise<string[]>;
  /** How a job has ended by the job COB of its commit, read from the node's storage; null for a repository that is not on Radicle. */
  cobRun: ((commit: string, log: string) => Promise<CobRun>) | null;
};

/** Id of the hook at the broker. */
export const HOOK = "git";
const postReceive = createRequire(import.meta.url).resolve("@plumule/bridge/post-receive");

/** A program at work for the gardener; answers what it prints. */
type Command = (cwd: string, program: string, ...args: string[]) => Promise<string>;

/** Runs programs as somebody whose home is `folder`: the configuration of the person and of the system is left alone and unread. */
export function gardener(folder: string): Command {
  const person = { NAME: "A gardener", EMAIL: "gardener@example.org" };
  const names = Object.entries(person).flatMap(([name, value]) => [
    [`GIT_AUTHOR_${name}`, value],
    [`GIT_COMMITTER_${name}`, value],
  ]);
  const env = {
    ...process.env,
    HOME: folder,
    GIT_CONFIG_NOSYSTEM: "1",
    GIT_CONFIG_GLOBAL: "/dev/null",
    ...Object.fromEntries(names),
  };
  return async (cwd, program, ...args) => {
    const running = run(program, args, { cwd, env });
    running.child.stdin?.end();
    const { stdout, stderr } = await running;
    return `${stdout}${stderr}`;
  };
}

/** Commits in a clone. */
export function committer(command: Command, clone: string): Garden["commit"] {
  return async (message, season) => {
    await writeFile(join(clone, "flake.nix"), flakeText(season));
    await command(clone, "git", "add", "flake.nix");
    await command(clone, "git", "commit", "--quiet", "--message", message);
    return (await command(clone, "git", "rev-parse", "HEAD")).trim();
  };
}

/** Makes a bare repository with a `post-receive` hook, its key, and a clone below `folder`. */
export async function makeGarden(folder: string, broker: { url: string; namespace: string }): Promise<Garden> {
  const bare = join(folder, "origin.git");
  const clone = join(folder, "clone");
  const key = join(folder, "hook-key.pem");
  await mkdir(folder, { recursive: true });
  const command = gardener(folder);
  const git = (cwd: string, ...args: string[]): Promise<string> => command(cwd, "git", ...args);
  await git(folder, "init", "--quiet", "--bare", "--template=", "--initial-branch=main", bare);
  await git(folder, "clone", "--quiet", "--template=", bare, clone);
  const made = await createKey(key);
  if (!made.ok) throw new Error(made.detail);
  const config = { url: broker.url, namespace: broker.namespace, hook: HOOK, key };
  for (const [name, value] of Object.entries(config)) await git(bare, "config", `plumule.${name}`, value);
  await mkdir(join(bare, "hooks"), { recursive: true });
  await writeFile(join(bare, "hooks/post-receive"), `#!/bin/sh\nexec '${process.execPath}' '${postReceive}'\n`, {
    mode: 0o755,
  });
  return {
    clone,
    hookKey: didKeyOf(made.signer.publicKey),
    described:
      "a bare repository with a hook (to a Radicle node where rad, radicle-node, git-remote-rad and rad-job are on PATH)",
    command: "git push",
    commit: committer(command, clone),
    push: async () =>
      (await git(clone, "push", "origin", "HEAD:refs/heads/main"))
        .split("\n")
        .filter((line) => line.startsWith("remote:")),
    cobRun: null,
  };
}
