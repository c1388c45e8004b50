import { LIMITS, type Millis } from "@plumule/protocol";

/** A mark that has not come back, with the characters that were sent between the one before it and itself. */
type Mark = { readonly number: number; readonly at: Millis; readonly characters: number };

/**
 * What a client was sent and may not have read. The runtime queues without limit and does not tell how much (it has no
 * `bufferedAmount`), so the client tells: after each quarter of its share comes a `mark`, which it sends back when it has read so far.
 * `characters` were sent since the last mark. JSON is nearly all ASCII, so these are bytes.
 */
export type Credit = { readonly marks: readonly Mark[]; readonly characters: number };

/** Marks per share. Four: while a reader works on one quarter, the next ones are on the wire. */
const MARKS = 4;

/** The credit of a new socket. */
export const FULL_CREDIT: Credit = { marks: [], characters: 0 };

/** Characters that each of `socketCount` sockets may have unread. */
export function shareOf(socketCount: number): number {
  return Math.min(LIMITS.socketBufferBytes, Math.floor(LIMITS.objectBufferBytes / Math.max(1, socketCount)));
}

/**
 * Characters that may be sent now; at most 0 when a mark has to come back first. Without a mark under way there is always room: nothing would
 * ever come back to a socket whose share shrank.
 */
export function roomIn({ marks, characters }: Credit, share: number): number {
  const room = marks.reduce((left, mark) => left - mark.characters, share - characters);
  return marks.length === 0 ? Math.max(1, room) : room;
}

/** Counts a frame. `mark` is the number of the mark that has to follow it, or null. `mint` makes one when it is needed. */
export function spend(
  { marks, characters }: Credit,
  frame: string,
  share: number,
  mint: () => Pick<Mark, "number" | "at">,
): { credit: Credit; mark: number | null } {
  const sent = characters + frame.length;
  if (sent < share / MARKS) return { credit: { marks, characters: sent }, mark: null };
  const mark = { ...mint(), characters: sent };
  return { credit: { marks: [...marks, mark], characters: 0 }, mark: mark.number };
}

/** A mark came back, and with it all before it; null when it was not under way. */
export function redeem(credit: Credit, number: number): Credit | null {
  const place = credit.marks.findIndex((mark) => mark.number === number);
  return place === -1 ? null : { ...credit, marks: credit.marks.slice(place + 1) };
}

/** True when the client has confirmed nothing for so long that it is let go: it resumes by cursor when it is well. */
export function isStalled(credit: Credit, share: number, now: Millis): boolean {
  const [oldest] = credit.marks;
  return oldest !== undefined && roomIn(credit, share) <= 0 && now - oldest.at > LIMITS.socketStallMs;
}
