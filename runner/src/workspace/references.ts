import { admitUrl, runGit } from "../git.ts";
import { type CommitSource, type FetchFailure, type FetchOptions } from "../mirror.ts";
import type { WorkspaceConfig, WorkspaceRepository } from "./config.ts";
import { refuseWorkspace, type WorkspaceRefusal } from "./provider.ts";
import type { TreePart } from "./tree.ts";

/** A repository with the commit that its reference leads to at this moment. */
export interface ResolvedSource {
  source: CommitSource;
  path: string;
}

const LOCAL_MS = 60_000;
/** Bytes of a list of everything that a commit holds. */
const LIST_BYTES = 128 * 1024 * 1024;

/** Asks each repository of a configuration where its reference leads now. */
export async function resolveReferences(
  { repositories }: Pick<WorkspaceConfig, "repositories">,
  options: FetchOptions,
): Promise<ResolvedSource[] | WorkspaceRefusal> {
  const answers = await Promise.all(repositories.map((repository) => resolve(repository, options)));
  const found: ResolvedSource[] = [];
  for (const answer of answers) {
    if ("refused" in answer) return answer;
    found.push(answer);
  }
  return found;
}

async function resolve(
  repository: WorkspaceRepository,
  options: FetchOptions,
): Promise<ResolvedSource | WorkspaceRefusal> {
  const { url, path, reference, credential } = repository;
  const sourceAt = (commit: string): ResolvedSource => ({
    source: {
      repository: url,
      commit,
      credential,
      // git servers need to be asked for the refs of patches.
      ...(reference?.startsWith("refs/patches/") === true ? { ref: reference } : {}),
    },
    path,
  });
  if (reference !== null && /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(reference)) return sourceAt(reference);
  const from = admitUrl(url, options.policy);
  if ("refused" in from) return refuseWorkspace("invalid", `${url}: ${from.refused}`);
  const refs = refsOf(reference);
  const { cancel } = options;
  const listed = await runGit({
    args: ["ls-remote", "--quiet", "--end-of-options", from.url, ...refs],
    cwd: "/",
    from: credential === null ? from : { ...from, credential },
    timeoutMs: options.timeoutMs,
    ...(cancel === undefined ? {} : { cancel }),
  });
  if (!listed.ok) {
    if (listed.reason === "cancelled") return refuseWorkspace("cancelled", `cancelled while ${url} was asked`);
    return refuseWorkspace("unreachable", `${url}: ${listed.detail}`);
  }
  const commits = new Map(listed.stdout.split("\n").map((line) => line.split("\t").toReversed() as [string, string]));
  const commit = refs.map((ref) => commits.get(ref)).find((id) => id !== undefined);
  if (commit !== undefined) return sourceAt(commit);
  const wanted = reference === null ? "no default branch" : `no branch or tag ${reference}`;
  return refuseWorkspace("invalid", `${url} has ${wanted}`);
}

/** The refs that a name may mean, the likeliest first; a tag's commit before the tag itself. */
function refsOf(reference: string | null): string[] {
  if (reference === null) return ["HEAD"];
  const names = reference.startsWith("refs/") ? [reference] : [`refs/heads/${reference}`, `refs/tags/${reference}`];
  return names.flatMap((name) => [`${name}^{}`, name]);
}

/** One file of a commit: where it lies in the tree of a workspace, and the id of its content. */
export interface TrackedFile {
  path: string;
  id: string;
}

/** Everything that the commits of a tree hold, as the mirrors tell. */
export async function listFiles(parts: readonly TreePart[]): Promise<TrackedFile[]> {
  const found: TrackedFile[] = [];
  for (const { path, commit, mirror } of parts) {
    const args = ["ls-tree", "-r", "-z", "--full-tree", commit];
    const listed = await runGit({ args, cwd: mirror, timeoutMs: LOCAL_MS, outputBytes: LIST_BYTES });
    if (!listed.ok) throw new Error(`${mirror}: ${listed.detail}`);
    for (const line of listed.stdout.split("\0")) {
      const [head = "", name] = line.split("\t");
      if (name !== undefined)
        found.push({ path: path === "." ? name : `${path}/${name}`, id: head.split(" ")[2] ?? "" });
    }
  }
  return found;
}

/** A failed fetch in the words of a provider. */
export function refusalOf({ reason, detail }: FetchFailure): WorkspaceRefusal {
  switch (reason) {
    case "refused-url":
    case "invalid-commit":
    case "invalid-ref":
    case "no-such-commit":
      return refuseWorkspace("invalid", detail);
    case "unreachable":
    case "cancelled":
      return refuseWorkspace(reason, detail);
    case "git-failed":
      return refuseWorkspace("failed", detail);
  }
}
