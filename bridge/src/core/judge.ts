import { type IdentityDocument, isPrivate, mayPush } from "@plumule/protocol";
import type { Move } from "./moves.ts";

/** Whose pushes of which repositories are told; null selects all. Repositories as `z…`, people as did:key. */
export type Selection = { repositories: ReadonlySet<string> | null; people: ReadonlySet<string> | null };

/** What is known about the moves of a repository beside themselves. */
export type Facts = {
  document: IdentityDocument;
  selection: Selection;
  /** The commit that an object leads to (a tag, say), by its id; null when there is none, or the storage does not have it. */
  commits: ReadonlyMap<string, string | null>;
  /** `<ref> <oid>` of moves that lead to what the repository's own ref has already. */
  known: ReadonlySet<string>;
};

/** A move as a webhook tells it; `before` and `after` are commits, all zeros for none. `author` is a did:key, null for the repository itself. */
export type Told = {
  ref: string;
  patch: string | null;
  before: string;
  after: string;
  author: string | null;
};

/** What becomes of a move: a webhook, or in words why none. */
export type Verdict = { told: Told } | { told: null; why: string };

/** Why a repository starts nothing at all, or null. A private one is told of only when it is named, so that no broker learns of it by accident. */
export function whyNotRepository(id: string, document: IdentityDocument, { repositories }: Selection): string | null {
  if (repositories !== null) return repositories.has(id) ? null : "the repository is not one of those of --repo";
  return isPrivate(document) ? "the repository is private: it is told of only when --repo names it" : null;
}

/** What becomes of each move. One of the repository's own refs is left out where a delegate's push that is told says the same. */
export function judge(moves: readonly Move[], facts: Facts): Verdict[] {
  const said = new Set<string>();
  return moves.map((move) => {
    const verdict = judgeOne(move, facts);
    if (verdict.told === null) return verdict;
    const { author, ref, after } = verdict.told;
    if (author === null && said.has(`${ref} ${after}`)) return nothing("a delegate's push says the same");
    if (author !== null && facts.document.delegates.includes(author)) said.add(`${ref} ${after}`);
    return verdict;
  });
}

function judgeOne({ node, ref, before, after }: Move, { document, selection, commits, known }: Facts): Verdict {
  const kind = kindOf(ref);
  if (kind === null) return nothing(whyNoKind(ref));
  const author = node === null ? null : `did:key:${node}`;
  if (author !== null && selection.people?.has(author) === false)
    return nothing(`${author} is not one of those of --follow`);
  if (author !== null && !mayPush(document, author))
    return nothing(`${author} is neither a delegate of the private repository nor allowed to see it`);
  const isDelegate = author === null || document.delegates.includes(author);
  if (!isDelegate && known.has(`${ref} ${after}`)) return nothing("the repository's own ref has this commit already");
  const zeros = "0".repeat((after ?? before ?? "").length);
  const commit = after === null ? zeros : commits.get(after);
  if (commit == null) return nothing(`${after?.slice(0, 7)} leads to no commit here: the ref has moved on since`);
  return {
    told: {
      ...kind,
      before: before === null ? zeros : (commits.get(before) ?? before),
      after: commit,
      author,
    },
  };
}

/** How a ref is told: patches lie below `refs/heads/` in Radicle's storage. Null for what starts nothing. */
function kindOf(ref: string): Pick<Told, "ref" | "patch"> | null {
  const [, patch] = /^refs\/heads\/patches\/([0-9a-f]{40}|[0-9a-f]{64})$/.exec(ref) ?? [];
  if (patch !== undefined) return { ref: `refs/patches/${patch}`, patch };
  return /^refs\/(?:heads|tags)\//.test(ref) ? { ref, patch: null } : null;
}

function whyNoKind(ref: string): string {
  if (!ref.startsWith("refs/cobs/")) return "only branches, tags and patches start jobs";
  return ref.startsWith("refs/cobs/xyz.radicle.patch/")
    ? "what people say about a patch starts nothing; a new revision moves its branch too"
    : "what people say starts nothing";
}

function nothing(why: string): Verdict {
  return { told: null, why };
}
