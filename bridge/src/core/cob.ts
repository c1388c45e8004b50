import { type Claims, isFinalJobState, type JobDetail, parseRadicleUrl } from "@plumule/protocol";

/** What a node's job COB should say of a job: nothing, that it has started, or how it ended. */
export type Word = "nothing" | "started" | "succeeded" | "failed";

/** A statement that verified under a key that this node believes: who signed it, and what it says. */
export type Believed = { signer: string; claims: Claims };

/** The repository (`z…`) and commit that a job is about, or null for a job that is about no commit on Radicle. */
export function radicleSource({ source }: Pick<JobDetail["job"], "source">): { id: string; commit: string } | null {
  const name = source === null ? null : parseRadicleUrl(source.repository);
  return name === null || source === null ? null : { id: name.id, commit: source.commit };
}

/**
 * What a node says of a job in its own name. That it succeeded only when as many runners whom it believes have signed so as the job asks for; every other
 * end of a job that was at work is `failed`, because a job COB has no other word. Of runners that it does not believe it says nothing.
 */
export function wordFor(
  { job, spec, runs }: Pick<JobDetail, "job" | "spec" | "runs">,
  statements: readonly Believed[],
  believed: ReadonlySet<string>,
): Word {
  const isByBelieved = runs.some(({ runner, state }) => state !== "assigned" && believed.has(runner));
  if (!isFinalJobState(job.state)) return isByBelieved ? "started" : "nothing";
  if (!isByBelieved) return "nothing";
  if (job.state !== "succeeded" && job.state !== "skipped") return "failed";
  const voters = statements
    .filter(({ claims }) => claims.result === "succeeded" || claims.result === "skipped")
    .map(({ signer }) => signer);
  return new Set(voters).size >= (spec.quorum?.agree ?? 1) ? "succeeded" : "failed";
}
