import type { CommitState, DeliveryView, JobState, JobView } from "@plumule/protocol";
import type { StatusTarget } from "./push.ts";

/**
 * The answer that a delivery's sender waits for: whom to tell, signed with which secret of the hook, the state that was last handed to the
 * outbox, and in words what came of telling it. A persisted contract.
 */
export type CommitStatus = {
  target: StatusTarget;
  secret: string;
  /** The delivery whose jobs it is about, when this one was a copy. */
  as: string | null;
  state: CommitState | null;
  detail: string;
};

/** What is to be told. */
export type StatusReport = { state: CommitState; description: string; job: string | null };

/** Characters of a description: receivers show one line. */
const DESCRIPTION_CHARACTERS = 140;

/** A delivery's answer as people see it. */
export function statusView({ target, state, detail }: CommitStatus): NonNullable<DeliveryView["status"]> {
  return { context: target.context, state, detail };
}

/** What a rule has come to, as far as the answer depends on it. */
type Part = { deployment: string | null; job: string | null; detail: string; pending: boolean; view: JobView | null };

/**
 * The state of a commit from all that its delivery led to: running while anything runs, a failure as soon as everything has ended and
 * anything has failed. A delivery without a job is a failure too, in words: whoever waits would wait in vain.
 */
export function reportOf(parts: readonly Part[]): StatusReport {
  const asked = parts.filter(({ deployment }) => deployment !== null);
  if (asked.length === 0) return report("failure", `No job: ${parts[0]?.detail ?? "no rule"}`, null);
  const states = asked.map(commitState);
  const at = (state: CommitState): Part | undefined => asked[states.indexOf(state)];
  const running = at("running");
  if (running !== undefined) return report("running", `${running.deployment} is at work.`, running);
  const waiting = at("pending");
  if (waiting !== undefined) return report("pending", waiting.view?.waiting?.detail ?? "Queued.", waiting);
  const failed = at("failure");
  if (failed !== undefined)
    return report("failure", failed.view?.reason?.detail ?? `${failed.deployment}: ${failed.detail}`, failed);
  return report(
    "success",
    asked.length === 1 ? "The job succeeded." : `${asked.length} jobs succeeded.`,
    at("success"),
  );
}

/** A job that is not listed yet was submitted a moment ago; a rule without one was refused by its deployment. */
function commitState({ pending, job, view }: Part): CommitState {
  if (pending || (job !== null && view === null)) return "pending";
  return view === null ? "failure" : stateOf(view.state);
}

function stateOf(state: JobState): CommitState {
  switch (state) {
    case "held":
    case "queued":
    case "assigned":
      return "pending";
    case "running":
    case "cancelling":
      return "running";
    case "succeeded":
    case "skipped":
      return "success";
    case "failed":
    case "cancelled":
    case "superseded":
    case "unknown":
      return "failure";
  }
}

function report(state: CommitState, description: string, part: Part | null | undefined): StatusReport {
  return { state, description: description.slice(0, DESCRIPTION_CHARACTERS), job: part?.view?.id ?? null };
}

/** True when telling `next` after `last` goes forward: what has ended does not begin again, because receivers take the last word. */
export function goesForward(last: CommitState | null, next: CommitState): boolean {
  const order: readonly (CommitState | null)[] = [null, "pending", "running", "success", "failure"];
  if (last === "success" || last === "failure") return false;
  return order.indexOf(next) > order.indexOf(last);
}
