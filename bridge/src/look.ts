import { createHash } from "node:crypto";
import {
  type IdentityDocument,
  isPrivate,
  LIMITS,
  type Millis,
  type Push,
  type RefTable,
  runnerIdSchema,
} from "@plumule/protocol";
import { judge, type Selection, type Told, whyNotRepository } from "./core/judge.ts";
import { type Move, movedRemotes, movesSince, type RemoteHistory, type Seen, seenNext } from "./core/moves.ts";
import { withChangedPaths } from "./changed-paths.ts";
import { pushOf } from "./push.ts";
import {
  isAncestor,
  readCommitOf,
  readDocument,
  readHeads,
  readHistory,
  readPatchBase,
  readSubject,
  type StoredRepository,
} from "./storage.ts";

/** What the bridge adds to every push: whom it is for, where else runners find public repositories, and whom its node follows (did:key), asked when there is something to tell. */
export type Telling = {
  audience: string;
  seeds: readonly string[];
  followed: () => Promise<ReadonlySet<string>>;
  selection: Selection;
};

/** What became of one move: a push with the id of its webhook, or in words why none. `number` is given when it is queued. */
export type Finding = { move: Move; push: Push; id: string } | { move: Move; push: null; why: string };

/**
 * What a look at a repository found. `seen` is to be remembered once every push is in the queue; null when nothing is new. `why` says why the
 * whole repository starts nothing.
 */
export type Look = { findings: Finding[]; seen: Seen | null; why: string | null; faults: string[] };

/** Looks what has moved in a repository since it was seen. Changes nothing. Rejects when git cannot read the storage. */
export async function look(
  repository: StoredRepository,
  seen: Seen | null,
  telling: Telling,
  now: Millis,
): Promise<Look> {
  const heads = await readHeads(repository);
  const next = seenNext(seen, heads, now);
  if (next === null) return { findings: [], seen: null, why: null, faults: [] };
  const document = await readDocument(repository);
  // A clone that has just begun: the next look finds more.
  if (document === null) return { findings: [], seen: null, why: "it has no identity document yet", faults: [] };
  const why = whyNotRepository(repository.id, document, telling.selection);
  if (why !== null) return { findings: [], seen: null, why, faults: [] };
  const faults: string[] = [];
  const histories: RemoteHistory[] = [];
  for (const moved of movedRemotes(seen, heads)) {
    const read = await readHistory(repository, moved);
    histories.push(read.history);
    faults.push(...read.faults);
  }
  const moves = movesSince(seen, heads, histories);
  const verdicts = judge(moves, {
    document,
    selection: telling.selection,
    commits: await commitsOf(repository, moves),
    known: await knownOf(repository, moves, heads.canonical, document),
  });
  const findings: Finding[] = [];
  const followed = moves.length === 0 ? new Set<string>() : await telling.followed();
  for (const [index, move] of moves.entries()) {
    const verdict = verdicts[index];
    if (verdict === undefined || verdict.told === null) {
      findings.push({ move, push: null, why: verdict?.why ?? "" });
      continue;
    }
    const tip = histories.find(({ node }) => node === move.node)?.steps.at(-1)?.refs;
    findings.push(await findingOf(repository, move, verdict.told, { document, telling, followed, tip, seen }));
  }
  return {
    findings,
    seen: next,
    why: seen === null ? "seen for the first time: what is there is history" : null,
    faults,
  };
}

async function findingOf(
  repository: StoredRepository,
  move: Move,
  told: Told,
  {
    document,
    telling,
    followed,
    tip,
    seen,
  }: {
    document: IdentityDocument;
    telling: Telling;
    followed: ReadonlySet<string>;
    tip: RefTable | undefined;
    seen: Seen | null;
  },
): Promise<Finding> {
  const { id } = repository;
  const isDeletion = move.after === null;
  const object = told.patch === null ? undefined : tip?.get(`refs/cobs/xyz.radicle.patch/${told.patch}`);
  const base = object === undefined || isDeletion ? null : await readPatchBase(repository, object, told.after);
  const made = pushOf(told, {
    audience: telling.audience,
    repository: `rad:${id}`,
    urls: isPrivate(document) ? [] : telling.seeds.map((seed) => `${seed}/${id}.git`),
    message: isDeletion ? null : await readSubject(repository, told.after),
  });
  if (!made.ok) return { move, push: null, why: made.detail };
  const delegates = document.delegates.filter((did) => runnerIdSchema.safeParse(did).success);
  const known: Push = {
    ...made.value,
    ...(told.author === null ? {} : { author: told.author, followed: followed.has(told.author) }),
    ...(told.patch === null ? {} : { patch: told.patch }),
    ...(base === null ? {} : { base }),
    delegates: delegates.slice(0, LIMITS.delegates),
  };
  const push = await withChangedPaths(known, repository.folder);
  // The same after a crash, and another one when the ref comes back to a commit.
  const key = [id, move.node, move.ref, move.before, move.after, seen?.revision ?? 0];
  const digest = createHash("sha256").update(JSON.stringify(key)).digest("hex");
  return { move, push, id: `rad_${digest.slice(0, 40)}` };
}

async function commitsOf(repository: StoredRepository, moves: readonly Move[]): Promise<Map<string, string | null>> {
  const commits = new Map<string, string | null>();
  for (const { ref, before, after } of moves) {
    if (!/^refs\/(?:heads|tags)\//.test(ref)) continue;
    for (const oid of [before, after])
      if (oid !== null && !commits.has(oid)) commits.set(oid, await readCommitOf(repository, oid));
  }
  return commits;
}

/** Which moves of people who are no delegates only follow the repository's own ref of that name, as every fork does. */
async function knownOf(
  repository: StoredRepository,
  moves: readonly Move[],
  canonical: RefTable,
  { delegates }: IdentityDocument,
): Promise<Set<string>> {
  const known = new Set<string>();
  for (const { node, ref, after } of moves) {
    const own = canonical.get(ref);
    if (node === null || after === null || own === undefined || delegates.includes(`did:key:${node}`)) continue;
    if (own === after || (await isAncestor(repository, after, own))) known.add(`${ref} ${after}`);
  }
  return known;
}
