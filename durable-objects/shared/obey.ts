import { isRefusal, LIMITS, refuse, type ClientFrame, type Refusal } from "@plumule/protocol";
import { openEvents, openLog, type FeedDeps } from "./feed.ts";
import { hasRoomFor, place, type Session } from "./subscription.ts";

/** Where a socket stands after a frame of its client, and what it is told at once; or why nothing changed. */
export type Obeyed = { session: Session; frames: string[] } | Refusal;

/** Does what a frame asks for, as values. */
export function obey(session: Session, frame: ClientFrame, deps: FeedDeps): Obeyed {
  const found = session.subscriptions.find((subscription) => subscription.id === frame.id);
  switch (frame.op) {
    case "subscribe":
    case "log":
      return found === undefined
        ? open(session, frame, deps)
        : refuse("conflict", `there is a subscription ${frame.id} already`, {
            next: "Unsubscribe it first, or choose another id.",
          });
    case "ack":
      // An `ack` may cross the `end` of its subscription.
      if (found === undefined) return { session, frames: [] };
      if (found.kind !== "log")
        return refuse("invalid-body", "only a log is acknowledged; the cursor of events moves by itself");
      if (frame.offset > found.next)
        return refuse("invalid-body", `only ${found.next} bytes were sent`, {
          errors: [{ pointer: "/offset", detail: `at most ${found.next}` }],
        });
      return {
        session: place(session, found.id, { ...found, acked: Math.max(found.acked, frame.offset) }),
        frames: [],
      };
    case "unsubscribe":
      return found === undefined
        ? refuse("not-found", `there is no subscription ${frame.id}`)
        : { session: place(session, found.id, null), frames: [] };
  }
}

function open(session: Session, frame: Extract<ClientFrame, { op: "subscribe" | "log" }>, deps: FeedDeps): Obeyed {
  const opened = frame.op === "log" ? openLog(frame, deps) : openEvents(frame, deps);
  if (isRefusal(opened)) return opened;
  if (!hasRoomFor(session, opened.next))
    return refuse("rate-limited", `a socket holds ${LIMITS.subscriptions} subscriptions, fewer with long filters`, {
      next: "Unsubscribe from something, or open another socket.",
    });
  return { session: { ...session, subscriptions: [...session.subscriptions, opened.next] }, frames: opened.frames };
}
