import type { Millis, RefTable } from "@plumule/protocol";

/**
 * What the bridge remembers of a repository. `remotes` has the commit of `refs/rad/sigrefs` up to which each node's pushes were seen,
 * `canonical` the repository's own branches and tags, `sinceAt` when it was first seen, ms. `revision` grows whenever this changes.
 */
export type Seen = {
  version: 1;
  sinceAt: Millis;
  revision: number;
  remotes: Readonly<Record<string, string>>;
  canonical: Readonly<Record<string, string>>;
};

/** Where the refs of a repository stand now: the signed refs of each node (`z6Mk…`), and the repository's own branches and tags. */
export type Heads = { remotes: ReadonlyMap<string, string>; canonical: RefTable };

/** What a node signed at a time, ms, as its own clock says. */
export type SignedStep = { at: string; signedAt: Millis; refs: RefTable };

/** What a node has signed since it was seen, oldest first, and what stood there then; `base` is null for a node that is new. */
export type RemoteHistory = { node: string; base: RefTable | null; steps: readonly SignedStep[] };

/** A ref that moved: of a node, or of the repository itself (`node` null). `before` null made it, `after` null removed it. */
export type Move = { node: string | null; ref: string; before: string | null; after: string | null };

/** The nodes whose signed refs are others than those that were seen; none in a repository that is seen for the first time. */
export function movedRemotes(seen: Seen | null, heads: Heads): { node: string; head: string; seenAt: string | null }[] {
  if (seen === null) return [];
  return [...heads.remotes]
    .filter(([node, head]) => seen.remotes[node] !== head)
    .map(([node, head]) => ({ node, head, seenAt: seen.remotes[node] ?? null }));
}

/**
 * Every move since the repository was seen, in the order in which each node made them; then what became of the repository's own refs. A repository that
 * is seen for the first time has none: what was pushed before is history. So has a node that is new, up to what it signed before then.
 */
export function movesSince(seen: Seen | null, heads: Heads, histories: readonly RemoteHistory[]): Move[] {
  if (seen === null) return [];
  // Git counts seconds.
  const sinceAt = seen.sinceAt - (seen.sinceAt % 1_000);
  const moves = histories.flatMap(({ node, base, steps }) => {
    const first = base === null ? steps.findIndex(({ signedAt }) => signedAt >= sinceAt) : 0;
    if (first === -1) return [];
    let before = base ?? steps[first - 1]?.refs ?? new Map<string, string>();
    return steps.slice(first).flatMap(({ refs }) => {
      const made = movesBetween(node, before, refs);
      before = refs;
      return made;
    });
  });
  return [...moves, ...movesBetween(null, new Map(Object.entries(seen.canonical)), heads.canonical)];
}

function movesBetween(node: string | null, before: RefTable, after: RefTable): Move[] {
  const names = [...new Set([...before.keys(), ...after.keys()])].toSorted();
  return names
    .map((ref) => ({ node, ref, before: before.get(ref) ?? null, after: after.get(ref) ?? null }))
    .filter((move) => move.before !== move.after);
}

/** What is remembered when all moves are in the queue, or null when nothing is new. A node whose refs are gone from the storage is kept: they may come back. */
export function seenNext(seen: Seen | null, heads: Heads, now: Millis): Seen | null {
  const remotes = { ...seen?.remotes, ...Object.fromEntries(heads.remotes) };
  const canonical = Object.fromEntries(heads.canonical);
  if (seen !== null && isSame(seen.remotes, remotes) && isSame(seen.canonical, canonical)) return null;
  return { version: 1, sinceAt: seen?.sinceAt ?? now, revision: (seen?.revision ?? 0) + 1, remotes, canonical };
}

function isSame(one: Readonly<Record<string, string>>, other: Readonly<Record<string, string>>): boolean {
  const names = Object.keys(one);
  return names.length === Object.keys(other).length && names.every((name) => one[name] === other[name]);
}
