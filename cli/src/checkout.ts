import { execFile } from "node:child_process";
import { basename } from "node:path";
import { promisify } from "node:util";
import { commitSchema, refSchema, repositoryUrlSchema } from "@plumule/protocol";

const run = promisify(execFile);

/** What git says of the folder one stands in. `repository` is null when no remote can be fetched by a runner. */
export type Checkout = {
  /** The folder's top level. */
  root: string;
  commit: string;
  ref: string | null;
  /** There are changes that no commit has, so no runner will see them. */
  dirty: boolean;
  repository: string | null;
};

/** Reads the checkout around a folder, or null when there is none (or no git). */
export async function readCheckout(cwd: string): Promise<Checkout | null> {
  const [root, commit] = await Promise.all([git(cwd, "rev-parse", "--show-toplevel"), git(cwd, "rev-parse", "HEAD")]);
  if (root === null || commit === null) return null;
  const [ref, changes, rad, origin] = await Promise.all([
    git(cwd, "symbolic-ref", "--quiet", "HEAD"),
    git(cwd, "status", "--porcelain", "--untracked-files=no"),
    git(cwd, "config", "--get", "remote.rad.url"),
    git(cwd, "config", "--get", "remote.origin.url"),
  ]);
  const known = ref !== null && refSchema.safeParse(ref).success;
  const remotes = [rad === null ? null : radicleUrl(rad), origin];
  const repository = remotes.find((url) => url !== null && repositoryUrlSchema.safeParse(url).success) ?? null;
  return { root, commit, ref: known ? ref : null, dirty: (changes ?? "") !== "", repository };
}

/** The full id of a commit that git knows by another name (`HEAD`, a branch, a short id), or null. */
export async function findCommit(cwd: string, name: string): Promise<string | null> {
  if (commitSchema.safeParse(name).success) return name;
  return name.startsWith("-") ? null : git(cwd, "rev-parse", "--verify", "--quiet", `${name}^{commit}`);
}

/** The deployment that a checkout is by default: the name of its folder, made fit. */
export function deploymentOf({ root }: Pick<Checkout, "root">): string | null {
  const name = basename(root)
    .replaceAll(/[^A-Za-z0-9._-]+/g, "-")
    .replace(/^[^A-Za-z0-9]+/, "")
    .slice(0, 128);
  return name === "" ? null : name;
}

/** The repository of a Radicle remote: `rad://z3…/z6Mk…` names a repository and a peer's view of it. */
function radicleUrl(remote: string): string | null {
  const id = /^rad:(?:\/\/)?(z[1-9A-HJ-NP-Za-km-z]+)/.exec(remote)?.[1];
  return id === undefined ? null : `rad:${id}`;
}

async function git(cwd: string, ...args: string[]): Promise<string | null> {
  try {
    return (await run("git", args, { cwd, encoding: "utf8" })).stdout.trim();
  } catch {
    return null;
  }
}
