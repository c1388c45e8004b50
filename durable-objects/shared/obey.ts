import { isRefusal, LIMITS, refuse, type ClientFrame, type Refusal } from "@plumule/protocol";
import { redeem } from "./credit.ts";
import { openEvents } from "./events-feed.ts";
import type { FeedDeps } from "./feed.ts";
import { openLog } from "./log-feed.ts";
import { join, place, type Session } from "./subscription.ts";

/** Where a socket stands after a frame of its client; or why nothing changed. */
export function obey(session: Session, frame: ClientFrame, deps: FeedDeps): Session | Refusal {
  if (frame.op === "mark") {
    const credit = redeem(session.credit, frame.number);
    return credit === null ? refuse("invalid-body", "no such mark is under way") : { ...session, credit };
  }
  const found = session.subscriptions.find((subscription) => subscription.id === frame.id);
  switch (frame.op) {
    case "subscribe":
    case "log":
      if (found !== undefined)
        return refuse("conflict", `there is a subscription ${frame.id} already`, {
          next: "Unsubscribe it first, or choose another id.",
        });
      return open(session, frame, deps);
    case "ack":
      // An `ack` may cross the `end` of its subscription.
      if (found === undefined) return session;
      if (found.kind !== "log")
        return refuse("invalid-body", "only a log is acknowledged; the cursor of events moves by itself");
      if (frame.offset > found.next)
        return refuse("invalid-body", `only ${found.next} bytes were sent`, {
          errors: [{ pointer: "/offset", detail: `at most ${found.next}` }],
        });
      return place(session, found.id, { ...found, acked: Math.max(found.acked, frame.offset) });
    case "unsubscribe":
      return found === undefined
        ? refuse("not-found", `there is no subscription ${frame.id}`)
        : place(session, found.id, null);
  }
}

function open(
  session: Session,
  frame: Extract<ClientFrame, { op: "subscribe" | "log" }>,
  deps: FeedDeps,
): Session | Refusal {
  const opened = frame.op === "log" ? openLog(frame, deps.readLog) : openEvents(frame, deps.log);
  if (isRefusal(opened)) return opened;
  const next = "Unsubscribe from something, or open another socket.";
  return (
    join(session, opened) ??
    refuse("rate-limited", `a socket holds ${LIMITS.subscriptions} subscriptions, fewer with long filters`, { next })
  );
}
