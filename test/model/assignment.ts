import type { Assignment } from "@plumule/protocol";
import type { Lease } from "./world.ts";

/** A lease as a pool keeps it. The model needs none of a job's bulk, and the pool only tells assignments apart. */
export function claimAssignment(lease: Lease, requestKey: string): Assignment {
  const { run, epoch, job, leaseSha256 } = lease;
  const assignment: Pick<Assignment, "run" | "epoch" | "job" | "leaseToken" | "requestKey"> = {
    run,
    epoch,
    job,
    leaseToken: leaseSha256,
    requestKey,
  };
  return assignment as Assignment;
}
