import { existsSync } from "node:fs";
import { join } from "node:path";
import {
  IDENTITY_PATH,
  type IdentityDocument,
  identityDocumentSchema,
  isPrivate,
  mayPush,
  parseRadicleUrl,
  parseSignedRefs,
  type RadicleName,
  verifySignedRefs,
} from "@plumule/protocol";
import { findExecutable } from "./executable.ts";
import { type FetchUrl, readGit } from "./git.ts";

/** How this machine has repositories of Radicle. */
export type RadiclePolicy = {
  /** The home of a node; where it has none, nothing is read. */
  home: string;
  /** Origins of seeds that serve public repositories over HTTPS. */
  seeds: readonly string[];
  /** Private repositories of the node that jobs may name, as `rad:z…`. */
  privateRepositories: readonly string[];
};

/** Where a repository can be fetched, best place first; or why it may not be, or not that commit. */
export type RadiclePlaces = { places: FetchUrl[] } | { refused: string } | { unsigned: string };

/** A repository in the storage of a node. */
type Stored = { name: RadicleName; folder: string; document: IdentityDocument };

/** Signed refs of earlier times that are searched for a commit: enough for a branch that was pushed a few times since. */
const EARLIER_COUNT = 16;

/**
 * Where a commit of `rad:z…` is fetched: from the storage of the node of this machine, which then has to have it by the signature of somebody who
 * may push there; from `rad://` where git-remote-rad can find a storage elsewhere; from seeds, which have public repositories alone. A
 * storage that does not have the commit yet leaves public ones to the seeds.
 */
export async function radiclePlaces(url: FetchUrl, commit: string, policy: RadiclePolicy): Promise<RadiclePlaces> {
  const stored = await openStored(url, policy);
  if (stored !== null && "refused" in stored) return stored;
  const name = parseRadicleUrl(url.url);
  const seeds: FetchUrl[] = policy.seeds.map((seed) => ({ url: `${seed}/${name?.id}.git`, protocol: "https" }));
  if (stored === null) return { places: [...helper(url), ...seeds] };
  if ((await readGit(stored.folder, ["rev-parse", "--quiet", "--verify", `${commit}^{commit}`])) === null)
    return { places: isPrivate(stored.document) ? [] : seeds };
  if (!(await isSigned(stored, commit)))
    return { unsigned: `nobody who may push to ${url.url} has signed a ref that leads to ${commit}` };
  return { places: [{ url: stored.folder, protocol: "file" }] };
}

/**
 * Where the branches of `rad:z…` themselves can be asked: at the node of this machine alone, because a seed can say what it likes. `prefix` stands
 * before `refs/heads/` there. Null when there is no node, or the repository may not be named.
 */
export async function radicleRefs(
  url: FetchUrl,
  policy: RadiclePolicy,
): Promise<{ from: FetchUrl; prefix: string } | null> {
  const stored = await openStored(url, policy);
  if (stored === null) return helper(url).length === 0 ? null : { from: url, prefix: "" };
  if ("refused" in stored) return null;
  const { node } = stored.name;
  return {
    from: { url: stored.folder, protocol: "file" },
    prefix: node === null ? "" : `refs/namespaces/${node}/`,
  };
}

/** `rad://` by git-remote-rad, where that is installed. */
function helper(url: FetchUrl): FetchUrl[] {
  return findExecutable("git-remote-rad", process.env["PATH"] ?? "", "/") === null ? [] : [url];
}

async function openStored({ url }: FetchUrl, policy: RadiclePolicy): Promise<Stored | { refused: string } | null> {
  const name = parseRadicleUrl(url);
  if (name === null) return { refused: `${url} names no repository of Radicle` };
  const folder = join(policy.home, "storage", name.id);
  if (!existsSync(folder)) return null;
  const text = await readGit(folder, ["cat-file", "blob", `refs/rad/id:${IDENTITY_PATH}`]);
  const document = identityDocumentSchema.safeParse(parse(text));
  if (!document.success) return { refused: `the identity document of ${url} cannot be read in ${folder}` };
  if (isPrivate(document.data) && !policy.privateRepositories.includes(`rad:${name.id}`))
    return { refused: `${url} is private: this runner fetches it only when --private names it` };
  return { name, folder, document: document.data };
}

/** Whether a branch or tag leads to the commit, or led to it before, of somebody who may push to the repository, and has signed that. */
async function isSigned(stored: Stored, commit: string): Promise<boolean> {
  const { folder, name } = stored;
  const kinds = ["heads", "tags"].map((kind) => `refs/namespaces/${name.node ?? "*"}/refs/${kind}/**`);
  const leading = await linesOf(folder, [
    "for-each-ref",
    "--format=%(objectname) %(refname)",
    `--contains=${commit}`,
    ...kinds,
  ]);
  const tables = new Map<string, ReadonlyMap<string, string> | null>();
  for (const line of leading) {
    const [, oid, node, ref] = /^(\S+) refs\/namespaces\/([^/]+)\/(.+)$/.exec(line) ?? [];
    if (oid === undefined || node === undefined || ref === undefined) continue;
    if (!tables.has(node)) tables.set(node, await signedRefs(stored, node, `refs/namespaces/${node}/refs/rad/sigrefs`));
    if (tables.get(node)?.get(ref) === oid) return true;
  }
  return wasSigned(stored, commit);
}

async function wasSigned(stored: Stored, commit: string): Promise<boolean> {
  const { folder, name } = stored;
  const args = [`--glob=refs/namespaces/${name.node ?? "*"}/refs/rad/sigrefs`, "--source", "--format=%H %S"];
  const earlier = await linesOf(folder, ["log", `--max-count=${EARLIER_COUNT}`, `-S${commit}`, ...args, "--", "refs"]);
  for (const line of earlier) {
    const [, at, node] = /^([0-9a-f]+) refs\/namespaces\/([^/]+)\/refs\/rad\/sigrefs$/.exec(line) ?? [];
    if (at === undefined || node === undefined) continue;
    const table = await signedRefs(stored, node, at);
    for (const [ref, oid] of table ?? []) if (oid === commit && /^refs\/(?:heads|tags)\//.test(ref)) return true;
  }
  return false;
}

/** What a node has signed at a commit of its `refs/rad/sigrefs`, when it may push to the repository; else null. */
async function signedRefs(
  { folder, document }: Stored,
  node: string,
  at: string,
): Promise<ReadonlyMap<string, string> | null> {
  if (!mayPush(document, `did:key:${node}`)) return null;
  const blob = await readGit(folder, ["cat-file", "blob", `${at}:refs`]);
  const signature = await readGit(folder, ["cat-file", "blob", `${at}:signature`]);
  if (blob === null || signature === null || !(await verifySignedRefs(node, blob, signature))) return null;
  return parseSignedRefs(blob.toString("utf8"));
}

async function linesOf(folder: string, args: readonly string[]): Promise<string[]> {
  const text = await readGit(folder, args);
  return text === null
    ? []
    : text
        .toString("utf8")
        .split("\n")
        .filter((line) => line !== "");
}

function parse(text: Buffer | null): unknown {
  try {
    return text === null ? null : JSON.parse(text.toString("utf8"));
  } catch {
    return null;
  }
}
