import { execFile } from "node:child_process";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import {
  IDENTITY_PATH,
  type IdentityDocument,
  identityDocumentSchema,
  parseRadicleUrl,
  parseSignedRefs,
  repositoryIdOf,
  verifySignedRefs,
} from "@plumule/protocol";
import type { Heads, RemoteHistory, SignedStep } from "./core/moves.ts";
import { gitArguments, type GitObjects, gitVariables, openObjects, parseCommit } from "./git-objects.ts";

const run = promisify(execFile);

/** A repository as a node keeps it, `$RAD_HOME/storage/z…`: refs of nodes below `refs/namespaces/<node>/`, its own ones beside them. */
export type StoredRepository = { id: string; folder: string; objects: GitObjects };

/** Steps of one node that are followed one by one; of a longer absence only what came of it is told. */
const HISTORY_STEPS = 1_000;
/** Operations of a patch that are searched for a revision. */
const PATCH_OPERATIONS = 200;
/** Bytes of the list of a repository's refs: a node with 100,000 of them. */
const LIST_BYTES = 32 * 1024 * 1024;

/** The ids (`z…`) of the repositories in a storage folder; none when it is not there yet. */
export async function listRepositories(storage: string): Promise<string[]> {
  const names = await readdir(storage).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
  return names.filter((name) => parseRadicleUrl(`rad:${name}`)?.node === null).toSorted();
}

/** Opens a repository; `close` its objects afterwards. */
export function openRepository(storage: string, id: string): StoredRepository {
  const folder = join(storage, id);
  return { id, folder, objects: openObjects(folder) };
}

/** Where its refs stand. Rejects when git cannot read it. */
export async function readHeads({ folder }: Pick<StoredRepository, "folder">): Promise<Heads> {
  const patterns = ["refs/namespaces/*/refs/rad/sigrefs", "refs/heads", "refs/tags"];
  const lines = (await git(folder, ["for-each-ref", "--format=%(objectname) %(refname)", ...patterns])).split("\n");
  const remotes = new Map<string, string>();
  const canonical = new Map<string, string>();
  for (const line of lines) {
    const [, oid, ref] = /^([0-9a-f]+) (.+)$/.exec(line) ?? [];
    if (oid === undefined || ref === undefined) continue;
    const [, node] = /^refs\/namespaces\/(z6Mk[1-9A-HJ-NP-Za-km-z]{44})\/refs\/rad\/sigrefs$/.exec(ref) ?? [];
    if (node !== undefined) remotes.set(node, oid);
    else if (!ref.startsWith("refs/namespaces/")) canonical.set(ref, oid);
  }
  return { remotes, canonical };
}

/** The identity document of now, or null when there is none that can be understood. */
export async function readDocument({ objects }: StoredRepository): Promise<IdentityDocument | null> {
  const blob = await objects.read(`refs/rad/id:${IDENTITY_PATH}`);
  return blob === null ? null : (identityDocumentSchema.safeParse(parse(blob.content)).data ?? null);
}

/**
 * What a node has signed since `seenAt`, oldest first. Commits that it has not signed, or signed for another repository or place, do not count;
 * `faults` names them. When the history was rewritten, all that is signed now is one step from what was seen, as far as the storage still has that.
 */
export async function readHistory(
  repository: StoredRepository,
  { node, head, seenAt }: { node: string; head: string; seenAt: string | null },
): Promise<{ history: RemoteHistory; faults: string[] }> {
  const faults: string[] = [];
  const steps: SignedStep[] = [];
  let base: RemoteHistory["base"] = null;
  let at: string | undefined = head;
  for (let count = 0; at !== undefined && at !== seenAt && count < HISTORY_STEPS; count++) {
    const signed = await readSigned(repository, node, at);
    if ("refs" in signed) steps.unshift(signed);
    else faults.push(`${node} at ${at.slice(0, 7)}: ${signed.fault}`);
    at = signed.parent;
  }
  const isLinked = at === seenAt;
  for (let from: string | undefined = seenAt ?? undefined; from !== undefined && base === null;) {
    const signed = await readSigned(repository, node, from);
    if ("refs" in signed) base = signed.refs;
    from = signed.parent;
  }
  if (seenAt !== null && base === null)
    faults.push(`${node}: what it had signed is gone; what it has now counts as seen`);
  const fresh = isLinked || seenAt === null ? steps : steps.slice(-1);
  return { history: { node, base, steps: seenAt !== null && base === null ? [] : fresh }, faults };
}

type Signed = { parent: string | undefined } & (SignedStep | { fault: string });

async function readSigned({ id, objects }: StoredRepository, node: string, at: string): Promise<Signed> {
  const object = await objects.read(at);
  if (object?.type !== "commit") return { parent: undefined, fault: "no commit" };
  const { parents, committedAt } = parseCommit(object.content);
  const [parent] = parents;
  const fault = (text: string): Signed => ({ parent, fault: text });
  const blob = await objects.read(`${at}:refs`);
  const signature = await objects.read(`${at}:signature`);
  if (blob === null || signature === null) return fault("no signed refs");
  if (!(await verifySignedRefs(node, blob.content, signature.content))) return fault("not signed by this node");
  const refs = parseSignedRefs(blob.content.toString("utf8"));
  if (refs === null) return fault("no list of refs");
  const root = refs.get("refs/rad/root");
  if (root !== undefined) {
    const document = await objects.read(`${root}:${IDENTITY_PATH}`);
    if (document === null || repositoryIdOf(document.oid) !== id) return fault("signed for another repository");
  }
  const signedParent = refs.get("refs/rad/sigrefs-parent");
  if (signedParent !== undefined && signedParent !== parent) return fault("signed for another place in the history");
  // What Radicle itself keeps there moves with every push.
  const moving = new Map([...refs].filter(([ref]) => !ref.startsWith("refs/rad/")));
  return { parent, at, signedAt: committedAt, refs: moving };
}

/** The commit that an object leads to, or null: the storage does not have it, or it is none. */
export async function readCommitOf({ objects }: StoredRepository, oid: string): Promise<string | null> {
  return (await objects.read(`${oid}^{commit}`))?.oid ?? null;
}

/** The first line of a commit's message, for people who read the list of jobs. */
export async function readSubject({ objects }: StoredRepository, commit: string): Promise<string | null> {
  const object = await objects.read(commit);
  if (object === null) return null;
  return parseCommit(object.content).message.split("\n", 1)[0]?.trim() || null;
}

/** Whether a commit is one of those that another leads to. */
export async function isAncestor({ folder }: StoredRepository, commit: string, of: string): Promise<boolean> {
  return git(folder, ["merge-base", "--is-ancestor", commit, of]).then(
    () => true,
    () => false,
  );
}

/**
 * The commit that a revision of a patch is to be merged into: `base` of the newest operation whose `oid` is the revision's head. `tip` is the
 * newest operation of the patch's object (radicle-cob's `backend/git/change.rs`): a commit with blobs `0`, `1`, … of JSON, whose parents are
 * earlier operations beside commits that its trailers name.
 */
export async function readPatchBase({ objects }: StoredRepository, tip: string, head: string): Promise<string | null> {
  const queue = [tip];
  const met = new Set<string>();
  for (let at = queue.shift(); at !== undefined && met.size < PATCH_OPERATIONS; at = queue.shift()) {
    if (met.has(at)) continue;
    met.add(at);
    const object = await objects.read(at);
    if (object?.type !== "commit") continue;
    const { parents, message } = parseCommit(object.content);
    const named = new Set([...message.matchAll(/^Rad-(?:Related|Resource): ([0-9a-f]+)$/gm)].map(([, oid]) => oid));
    for (let index = 0; ; index++) {
      const blob = await objects.read(`${at}:${index}`);
      if (blob === null) break;
      const base = baseOf(parse(blob.content), head);
      if (base !== null) return base;
    }
    queue.push(...parents.filter((parent) => !named.has(parent)));
  }
  return null;
}

function baseOf(action: unknown, head: string): string | null {
  if (typeof action !== "object" || action === null) return null;
  const { type, oid, base } = action as Record<string, unknown>;
  return type === "revision" && oid === head && typeof base === "string" ? base : null;
}

async function git(folder: string, args: readonly string[]): Promise<string> {
  const options = { env: gitVariables(), maxBuffer: LIST_BYTES };
  return (await run("git", [...gitArguments(folder), ...args], options)).stdout;
}

function parse(content: Buffer): unknown {
  try {
    return JSON.parse(content.toString("utf8"));
  } catch {
    return null;
  }
}
