import { LIMITS, type Millis } from "@plumule/protocol";

/**
 * What a client was sent and may not have read. The runtime queues without limit and does not tell how much (it has no
 * `bufferedAmount`), so the client tells: after each quarter of its share comes a `mark`, which it sends back when it has read so far.
 * `marks` are those that have not come back; `characters` were sent since the last one.
 */
export type Credit = {
  readonly marks: readonly { readonly number: number; readonly at: Millis }[];
  readonly characters: number;
};

/** Marks that may be under way. Four: while a reader works on one quarter, the next ones are on the wire. */
const MARKS = 4;

/** The credit of a new socket. */
export const FULL_CREDIT: Credit = { marks: [], characters: 0 };

/** Characters that one socket of `socketCount` may have unread (nearly all of JSON is ASCII, so these are bytes). */
export function shareOf(socketCount: number): number {
  return Math.min(LIMITS.socketBufferBytes, Math.floor(LIMITS.objectBufferBytes / Math.max(1, socketCount)));
}

/** Characters that may be sent now; 0 until a mark comes back. Always below a share, whatever it was when the marks were set. */
export function roomIn({ marks, characters }: Credit, share: number): number {
  return marks.length >= MARKS ? 0 : Math.max(1, ((MARKS - marks.length) * share) / MARKS - characters);
}

/** Counts a frame. `mark`: the frame fills a quarter, so a mark with this number has to follow it. */
export function spend(
  credit: Credit,
  characters: number,
  share: number,
  mark: { number: number; at: Millis },
): { credit: Credit; mark: number | null } {
  const sent = credit.characters + characters;
  if (sent < share / MARKS) return { credit: { ...credit, characters: sent }, mark: null };
  return { credit: { marks: [...credit.marks, mark], characters: 0 }, mark: mark.number };
}

/** A mark came back, and with it all before it; null when it was not under way. */
export function redeem(credit: Credit, number: number): Credit | null {
  const place = credit.marks.findIndex((mark) => mark.number === number);
  return place === -1 ? null : { ...credit, marks: credit.marks.slice(place + 1) };
}

/** True when the client has read nothing for so long that it is let go: it resumes by cursor when it is well. */
export function isStalled({ marks }: Credit, now: Millis): boolean {
  return marks.length >= MARKS && now - (marks[0]?.at ?? now) > LIMITS.socketStallMs;
}
