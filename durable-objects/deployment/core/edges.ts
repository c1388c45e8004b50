import type { JobState } from "@plumule/protocol";

/** What moves a job from one state to another. */
export type Cause =
  | "submitted"
  | "filled in"
  | "approved"
  | "granted"
  | "acknowledged"
  | "reported"
  | "planned"
  | "refused"
  | "cancelled"
  | "replaced"
  | "resolved"
  | "acknowledgement expired"
  | "lease expired"
  | "queue expired"
  | "timed out"
  | "concluded"
  | "need unmet"
  | "not allowed";

/** One edge of the state machine; `from` is null for a job that is being made. */
export type Edge = { from: JobState | null; cause: Cause; to: JobState };

const edges = (cause: Cause, table: readonly (readonly [JobState | null, ...JobState[]])[]): Edge[] =>
  table.flatMap(([from, ...targets]) => targets.map((to) => ({ from, cause, to })));

/**
 * Every way a job's state may change. `Work.move` refuses any other, and `docs/state-machine.md` draws exactly these.
 * No edge leads from `cancelling` to `succeeded` (P4), and none leaves a final state but a person's word about `unknown` (P6).
 */
export const EDGES: readonly Edge[] = [
  ...edges("submitted", [[null, "held", "queued"]]),
  ...edges("filled in", [[null, "succeeded", "failed", "cancelled", "skipped"]]),
  ...edges("approved", [["held", "queued"]]),
  ...edges("granted", [["queued", "assigned"]]),
  ...edges("acknowledged", [["assigned", "running"]]),
  ...edges("acknowledgement expired", [["assigned", "queued", "failed"]]),
  ...edges("reported", [
    ["running", "succeeded", "failed", "cancelled", "skipped", "unknown", "queued"],
    ["cancelling", "cancelled", "superseded", "failed", "unknown"],
  ]),
  ...edges("planned", [["running", "held"]]),
  ...edges("refused", [["running", "queued", "failed"]]),
  ...edges("lease expired", [
    ["running", "queued", "failed", "unknown"],
    ["cancelling", "cancelled", "superseded", "failed", "unknown"],
  ]),
  ...edges("timed out", [["running", "cancelling", "failed"]]),
  ...edges("concluded", [
    ["running", "succeeded", "failed", "skipped"],
    ["assigned", "failed"],
  ]),
  ...edges("queue expired", [
    ["held", "failed"],
    ["queued", "failed"],
  ]),
  ...edges("cancelled", [
    ["held", "cancelled"],
    ["queued", "cancelled"],
    ["assigned", "cancelled"],
    ["running", "cancelling", "cancelled"],
  ]),
  ...edges("replaced", [
    ["held", "superseded"],
    ["queued", "superseded"],
    ["assigned", "superseded"],
    ["running", "cancelling", "superseded"],
  ]),
  ...edges("need unmet", [["queued", "skipped"]]),
  ...edges("not allowed", [["queued", "failed", "skipped"]]),
  ...edges("resolved", [["unknown", "succeeded", "failed", "cancelled"]]),
];

/** True when the state machine has this edge. */
export function isEdge(from: JobState | null, cause: Cause, to: JobState): boolean {
  return EDGES.some((edge) => edge.from === from && edge.cause === cause && edge.to === to);
}
