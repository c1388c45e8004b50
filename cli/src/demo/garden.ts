import { execFile } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { promisify } from "node:util";
import { didKeyOf } from "@plumule/protocol";
import { createKey } from "@plumule/runner";
import { flakeText, type Season } from "./flake.ts";

const run = promisify(execFile);

/** A bare repository with a `post-receive` hook, and a clone in which somebody works. */
export type Garden = {
  /** The folder of the clone. */
  clone: string;
  /** The key whose signatures on pushes the broker is to believe. */
  hookKey: string;
  /** Writes the flake of a season and commits it; answers the commit's id. */
  commit(message: string, season: Season): Promise<string>;
  /** Pushes; answers what git and the hook print. */
  push(): Promise<string>;
};

/** Id of the hook at the broker. */
export const HOOK = "git";
const postReceive = createRequire(import.meta.url).resolve("@plumule/bridge/post-receive");

/** Makes repository, clone, key and hook below `folder`. The configuration of the person and of the system is left alone and unread. */
export async function makeGarden(folder: string, broker: { url: string; namespace: string }): Promise<Garden> {
  const bare = join(folder, "origin.git");
  const clone = join(folder, "clone");
  const key = join(folder, "hook-key.pem");
  await mkdir(folder, { recursive: true });
  const person = { NAME: "A gardener", EMAIL: "gardener@example.org" };
  const env = {
    PATH: process.env["PATH"],
    HOME: folder,
    GIT_CONFIG_NOSYSTEM: "1",
    GIT_CONFIG_GLOBAL: "/dev/null",
    ...Object.fromEntries(
      Object.entries(person).flatMap(([name, value]) => [
        [`GIT_AUTHOR_${name}`, value],
        [`GIT_COMMITTER_${name}`, value],
      ]),
    ),
  };
  const git = async (cwd: string, ...args: string[]): Promise<string> => {
    const { stdout, stderr } = await run("git", args, { cwd, env });
    return `${stdout}${stderr}`;
  };
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
    async commit(message, season) {
      await writeFile(join(clone, "flake.nix"), flakeText(season));
      await git(clone, "add", "flake.nix");
      await git(clone, "commit", "--quiet", "--message", message);
      return (await git(clone, "rev-parse", "HEAD")).trim();
    },
    push: () => git(clone, "push", "origin", "HEAD:refs/heads/main"),
  };
}
