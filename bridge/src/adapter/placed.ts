import { access } from "node:fs/promises";
import { accepted, LIMITS, type Push, refused, type Result } from "@plumule/protocol";
import { pushOf } from "../push.ts";
import { openRepository, readCommitOf, readSubject, type StoredRepository } from "../storage.ts";
import type { Change } from "./request.ts";

/** What is told of every change: for whom, the seeds from which runners without a node fetch, and whom the node follows (did:key). */
export type Context = { audience: string; seeds: readonly string[]; followed: ReadonlySet<string> };

/**
 * The webhook of a change, the same that a bridge beside the node would send, so that the broker takes the two for one push. What the request leaves
 * open is read from the node's storage; where that cannot be read a name is a branch. Refused for a name that is gone, because
 * radicle-ci-broker asks for a run when a tag is deleted.
 */
export async function pushOfChange(
  change: Change,
  storage: string,
  { audience, seeds, followed }: Context,
): Promise<Result<Push, "gone" | "not-a-push">> {
  const repository = openRepository(storage, change.repository);
  try {
    const isThere = await access(repository.folder).then(
      () => true,
      () => false,
    );
    const ref = await refOf(change, isThere ? repository : null);
    if (ref === null)
      return refused("gone", `there is no ${change.kind === "ref" ? change.name : ""} of ${change.author} any more`);
    const after = (isThere ? await readCommitOf(repository, change.after) : null) ?? change.after;
    const title = change.kind === "patch" ? change.title : null;
    const made = pushOf(
      { ref, before: null, after },
      {
        audience,
        repository: `rad:${change.repository}`,
        urls: change.isPrivate ? [] : seeds.map((seed) => `${seed}/${change.repository}.git`),
        message: (isThere ? await readSubject(repository, after) : null) ?? title,
      },
    );
    if (!made.ok) return made;
    return accepted({
      ...made.value,
      author: change.author,
      followed: followed.has(change.author),
      ...(change.kind === "patch" ? { patch: change.patch } : {}),
      ...(change.kind === "patch" && change.base !== null ? { base: change.base } : {}),
      delegates: change.delegates.slice(0, LIMITS.delegates),
    });
  } finally {
    repository.objects.close();
  }
}

/** The full name of the ref; null when the author has none of that name. Of a branch and a tag of one name it is the one that leads there. */
async function refOf(change: Change, repository: StoredRepository | null): Promise<string | null> {
  if (change.kind === "patch") return `refs/patches/${change.patch}`;
  const [, kind, name = change.name] = /^refs\/(heads|tags)\/(.+)$/.exec(change.name) ?? [];
  if (repository === null) return `refs/${kind ?? "heads"}/${name}`;
  const node = change.author.slice("did:key:".length);
  const found: { ref: string; oid: string }[] = [];
  for (const ref of [`refs/heads/${name}`, `refs/tags/${name}`]) {
    const object = await repository.objects.read(`refs/namespaces/${node}/${ref}`);
    if (object !== null) found.push({ ref, oid: object.oid });
  }
  return (found.find(({ oid }) => oid === change.after) ?? found[0])?.ref ?? null;
}
