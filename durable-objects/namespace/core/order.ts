import type { Push } from "@plumule/protocol";

/** One push to a ref as far as its place matters. `number` compares with others of the same `signer` alone. `failed`: its job was refused. */
export type Move = {
  id: string;
  signer: string;
  before: string | null;
  after: string;
  number: number | null;
  failed: boolean;
};

/** Where a push stands among those of its ref: the newest, a copy of one that came before, or older than one that came before. */
export type Place = { place: "newest" } | { place: "same" | "late"; as: string };

/** How many deliveries of a ref a push is compared with. */
export const HISTORY_COUNT = 200;

const NEWEST: Place = { place: "newest" };

/**
 * Places a push among the earlier ones of its ref, oldest first. Arrival says nothing: a retry or a slow seed brings an old push after a
 * new one, and it must not become what is deployed. The sender's own numbers decide where it has them. Otherwise the commit ids do: a
 * push that starts from the newest commit follows it; one that leads to a commit from which the ref has already moved on is late.
 */
export function placePush(push: Move, history: readonly Move[]): Place {
  const { line, late } = placeAll(history);
  return placeAmong(push, line, late);
}

/**
 * The push without its paths where they are not all that changed since the newest push of its ref: one in between was not told, or comes later, or
 * somebody else has moved the ref meanwhile. Those of a patch begin at its base, whatever came before.
 */
export function withBelievedPaths(push: Push, history: readonly Move[]): Push {
  const newest = placeAll(history).line.at(-1);
  if (push.type === "patch" || newest === undefined || newest.after === push.before) return push;
  const { paths: _, pathsTruncated: __, ...rest } = push;
  return rest;
}

function placeAll(history: readonly Move[]): { line: Move[]; late: Move[] } {
  const line: Move[] = [];
  const late: Move[] = [];
  for (const move of history) {
    const { place } = placeAmong(move, line, late);
    if (place === "newest") line.push(move);
    else if (place === "late") late.push(move);
  }
  return { line, late };
}

/** `line` are the pushes that were the newest when they came, in that order; `late` those that were not. */
function placeAmong(push: Move, line: readonly Move[], late: readonly Move[]): Place {
  const newest = line.at(-1);
  if (newest === undefined) return NEWEST;
  const { number } = push;
  const distance = (other: Move): number =>
    number === null || other.number === null || other.signer !== push.signer ? 0 : number - other.number;
  if (distance(newest) > 0 && push.after !== newest.after) return NEWEST;

  const copied = line.findLastIndex((move) => move.after === push.after);
  // A ref that has moved on to where this push starts, and now comes back, was really pushed again.
  const cameBack = push.before !== null && line.some((move, at) => at > copied && move.after === push.before);
  const original = line[copied];
  if (original !== undefined && !original.failed && !cameBack) return { place: "same", as: original.id };

  const known = [...line, ...late];
  const hasMovedOn = push.before !== newest.after && known.some((move) => move.before === push.after);
  return hasMovedOn || known.some((move) => distance(move) < 0) ? { place: "late", as: newest.id } : NEWEST;
}
