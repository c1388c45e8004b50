import { createHash, randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { commitSchema, refSchema } from "@plumule/protocol";
import { admitUrl, type Credential, type FetchUrl, type GitResult, runGit, type UrlPolicy } from "./git.ts";
import { radiclePlaces, radicleRefs } from "./radicle.ts";

/** A commit and the places that may have it, the repository's own URL first. */
export interface CommitSource {
  repository: string;
  commit: string;
  ref?: string | undefined;
  urls?: readonly string[] | undefined;
  /** For the repository's own URL alone. */
  credential?: Credential | null | undefined;
}

/** Why a commit cannot be had. `unreachable` and `git-failed` may pass elsewhere or later; the others will not. */
export type FetchFailure = {
  ok: false;
  reason:
    | "refused-url"
    | "invalid-commit"
    | "invalid-ref"
    | "unreachable"
    | "no-such-commit"
    | "cancelled"
    | "git-failed";
  detail: string;
};

/** How a fetch is bounded and what it may reach. */
export interface FetchOptions {
  /** Folder of all mirrors. */
  mirrors: string;
  policy: UrlPolicy;
  timeoutMs: number;
  cancel?: AbortSignal;
}

/** A commit that is complete in a mirror. `fetched` is false when it was there already. */
export type MirroredCommit = { ok: true; mirror: string; fetched: boolean };

const LOCAL_TIMEOUT_MS = 60_000;

/** The end of the queue of each mirror of this process. */
const queues = new Map<string, Promise<unknown>>();

/**
 * Brings a commit into the bare mirror of its repository, `<mirrors>/<sha256 of the URL>`, and pins it there with a ref,
 * which both proves that the commit arrived whole and tells the next fetch what need not be sent again.
 * Calls for one mirror queue up, so that a burst of runs fetches once. Other processes need no lock: git writes packs
 * and refs atomically, and no object of a mirror is ever collected: its packs are merged, and only one that no workspace borrows from may go as a whole.
 */
export async function mirrorCommit(
  source: CommitSource,
  options: FetchOptions,
): Promise<MirroredCommit | FetchFailure> {
  if (!commitSchema.safeParse(source.commit).success) return failure("invalid-commit", "a full commit id is needed");
  if (source.ref !== undefined && !refSchema.safeParse(source.ref).success) return failure("invalid-ref", source.ref);
  const urls: FetchUrl[] = [];
  for (const url of [source.repository, ...(source.urls ?? [])]) {
    const admitted = admitUrl(url, options.policy);
    if ("refused" in admitted) return failure("refused-url", admitted.refused);
    urls.push(
      url === source.repository && source.credential ? { ...admitted, credential: source.credential } : admitted,
    );
  }
  // Also of a commit that is here already: what the runner may fetch can have changed since.
  const places: FetchUrl[] = [];
  for (const url of urls) {
    const found = await placesFor(url, source.commit, options.policy);
    if ("refused" in found) return failure("refused-url", found.refused);
    if ("unsigned" in found) return failure("no-such-commit", found.unsigned);
    places.push(...found.places);
  }
  const format = source.commit.length === 64 ? "sha256" : "sha1";
  const mirror = mirrorOf(source, options);
  return inQueue(mirror, async () => {
    const created = await createMirror(mirror, format);
    if (!created.ok) return failure("git-failed", created.detail);
    if (await isPinned(mirror, source.commit)) return { ok: true, mirror, fetched: false };
    if (places.length === 0)
      return failure(
        "unreachable",
        `${source.repository}: no node of this machine has the commit, and no seed is known`,
      );
    return fetchFrom(mirror, places, source, options);
  });
}

async function placesFor(url: FetchUrl, commit: string, { radicle }: UrlPolicy): ReturnType<typeof radiclePlaces> {
  return url.protocol === "rad" && radicle !== undefined ? radiclePlaces(url, commit, radicle) : { places: [url] };
}

/** A repository that was asked itself, and the names of its branches that lead to a commit. `holds`: any of its branches or tags does. */
export type CommitPlace = { repository: string; holds: boolean; branches: string[] };

/**
 * Asks each place of a source, now, which of its own branches and tags lead to the commit. That a commit could be fetched from somewhere says
 * less: hosts serve the commits of everybody's forks and patches. A place that cannot be asked is left out. Call it for a commit that is mirrored.
 */
export async function placesOf(source: CommitSource, options: FetchOptions): Promise<CommitPlace[]> {
  const mirror = mirrorOf(source, options);
  const found: CommitPlace[] = [];
  for (const repository of [source.repository, ...(source.urls ?? [])]) {
    const asked = await refsFor(repository, options.policy);
    if (asked === null) continue;
    const { from, prefix } = asked;
    const root = `refs/asked/${createHash("sha256").update(repository).digest("hex")}`;
    const patterns = ["heads", "tags"].map((kind) => `+${prefix}refs/${kind}/*:${root}/${kind}/*`);
    await inQueue(mirror, async () => {
      if (!(await fetch(mirror, from, patterns, options, ["--prune"])).ok) return;
      const args = ["for-each-ref", "--format=%(refname)", `--contains=${source.commit}`, root];
      const refs = await runGit({ args, cwd: mirror, timeoutMs: LOCAL_TIMEOUT_MS });
      if (!refs.ok) return;
      const names = refs.stdout.split("\n").filter((name) => name !== "");
      const heads = `${root}/heads/`;
      const branches = names.filter((name) => name.startsWith(heads)).map((name) => name.slice(heads.length));
      found.push({ repository, holds: names.length > 0, branches });
    });
  }
  return found;
}

async function refsFor(repository: string, policy: UrlPolicy): ReturnType<typeof radicleRefs> {
  const from = admitUrl(repository, policy);
  if ("refused" in from) return null;
  return from.protocol === "rad" && policy.radicle !== undefined
    ? radicleRefs(from, policy.radicle)
    : { from, prefix: "" };
}

/** The text of a mirrored commit, or null. */
export async function readCommit(source: CommitSource, options: FetchOptions): Promise<string | null> {
  const args = ["cat-file", "commit", source.commit];
  const read = await runGit({ args, cwd: mirrorOf(source, options), timeoutMs: LOCAL_TIMEOUT_MS });
  return read.ok ? read.stdout : null;
}

/** Where the mirror of a repository is, or will be. A repository has one object format, which the length of its ids tells. */
export function mirrorOf({ repository, commit }: CommitSource, { mirrors }: Pick<FetchOptions, "mirrors">): string {
  const name = createHash("sha256").update(repository).digest("hex");
  return join(mirrors, commit.length === 64 ? `${name}-sha256` : name);
}

async function inQueue<T>(key: string, work: () => Promise<T>): Promise<T> {
  const turn = (queues.get(key) ?? Promise.resolve()).then(work);
  const settled = turn.catch(() => {});
  queues.set(key, settled);
  try {
    return await turn;
  } finally {
    if (queues.get(key) === settled) queues.delete(key);
  }
}

async function createMirror(mirror: string, format: "sha1" | "sha256"): Promise<GitResult> {
  if (existsSync(mirror)) return { ok: true, stdout: "" };
  const unfinished = `${mirror}.${randomUUID()}`;
  await mkdir(unfinished, { recursive: true, mode: 0o700 });
  // The empty template leaves no sample hooks behind.
  const args = ["init", "--quiet", "--bare", "--template=", `--object-format=${format}`];
  const result = await runGit({ args, cwd: unfinished, timeoutMs: LOCAL_TIMEOUT_MS });
  // Losing the race against another process is as good as winning it.
  if (result.ok) await rename(unfinished, mirror).catch(() => {});
  await rm(unfinished, { recursive: true, force: true });
  return result;
}

async function fetchFrom(
  mirror: string,
  urls: readonly FetchUrl[],
  source: CommitSource,
  options: FetchOptions,
): Promise<MirroredCommit | FetchFailure> {
  let reached = false;
  let detail = "";
  for (const from of urls) {
    const byId = await fetch(mirror, from, [`+${source.commit}:${pin(source.commit)}`], options);
    // Even a failed fetch counts when another process brought the commit meanwhile.
    if (byId.ok || (await isPinned(mirror, source.commit))) return { ok: true, mirror, fetched: true };
    if (byId.reason === "cancelled") return failure("cancelled", byId.detail);
    const byRef = await fetch(mirror, from, refspecs(source.ref), options, ["--prune"]);
    if (!byRef.ok) {
      if (byRef.reason === "cancelled") return failure("cancelled", byRef.detail);
      detail = `${detail}\n${from.url}: ${byRef.detail}`;
      continue;
    }
    reached = true;
    if (await pinWhenReachable(mirror, source.commit)) return { ok: true, mirror, fetched: true };
  }
  if (!reached) return failure("unreachable", detail.trim());
  return failure(
    "no-such-commit",
    `none of the refs of ${urls.map(({ url }) => url).join(", ")} leads to ${source.commit}`,
  );
}

/** Pins a commit that a fetched ref leads to. The object alone would not do: a fetch that failed may have left it without its tree. */
async function pinWhenReachable(mirror: string, commit: string): Promise<boolean> {
  const local = { cwd: mirror, timeoutMs: LOCAL_TIMEOUT_MS };
  const found = await runGit({ args: ["for-each-ref", "--count=1", `--contains=${commit}`, "refs/remote"], ...local });
  if (!found.ok || found.stdout === "") return false;
  return (await runGit({ args: ["update-ref", pin(commit), commit], ...local })).ok;
}

/** For a server that does not serve a commit by its id: its branches, its tags and the ref that was named. */
function refspecs(ref: string | undefined): string[] {
  const patterns = ["refs/heads/*", "refs/tags/*"].map((pattern) => `+${pattern}:refs/remote/${pattern.slice(5)}`);
  return ref?.startsWith("refs/patches/") ? [...patterns, `+${ref}*:refs/remote/${ref.slice(5)}*`] : patterns;
}

async function fetch(
  mirror: string,
  from: FetchUrl,
  refs: readonly string[],
  options: FetchOptions,
  extra: readonly string[] = [],
): Promise<GitResult> {
  const flags = ["--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"];
  return runGit({
    args: ["fetch", ...flags, ...extra, "--end-of-options", from.url, ...refs],
    cwd: mirror,
    from,
    timeoutMs: options.timeoutMs,
    ...(options.cancel === undefined ? {} : { cancel: options.cancel }),
  });
}

async function isPinned(mirror: string, commit: string): Promise<boolean> {
  // Most commits are new. A pin that git keeps elsewhere than in a file of its own is only fetched again.
  if (!existsSync(join(mirror, pin(commit)))) return false;
  const args = ["rev-parse", "--quiet", "--verify", "--end-of-options", `${pin(commit)}^{commit}`];
  const result = await runGit({ args, cwd: mirror, timeoutMs: LOCAL_TIMEOUT_MS });
  return result.ok && result.stdout.trim() === commit;
}

function pin(commit: string): string {
  return `refs/plumule/${commit}`;
}

function failure(reason: FetchFailure["reason"], detail: string): FetchFailure {
  return { ok: false, reason, detail };
}
