import {
  decideForReader,
  isDefaultPolicy,
  isFinalJobState,
  type JobDetail,
  parseRadicleUrl,
  type SignedClaims,
  type TrustPolicy,
} from "@plumule/protocol";

/** What a node's job COB should say of a job: nothing, that it has started, or how it ended. */
export type Word = "nothing" | "started" | "succeeded" | "failed";

/** Whom a node believes: keys of runners, and the policy by which their statements count; null for none: one of the keys will do. */
export type Trust = { keys: ReadonlySet<string>; policy: TrustPolicy | null };

/**
 * What is left of a namespace's policy for somebody who believes these keys alone: it can ask for more than they do, and count less, but can bring in nobody,
 * because it is the broker that tells it. Null when nobody has put one.
 */
export function narrowPolicy(policy: TrustPolicy, keys: ReadonlySet<string>): TrustPolicy | null {
  return isDefaultPolicy(policy) ? null : { ...policy, signers: policy.signers.filter(({ key }) => keys.has(key)) };
}

/** The repository (`z…`) and commit that a job is about, or null for a job that is about no commit on Radicle. */
export function radicleSource({ source }: Pick<JobDetail["job"], "source">): { id: string; commit: string } | null {
  const name = source === null ? null : parseRadicleUrl(source.repository);
  return name === null || source === null ? null : { id: name.id, commit: source.commit };
}

/**
 * What a node says of a job in its own name, and why it does not say that it succeeded although the broker does. That needs statements under keys that it
 * believes, which have all been verified and together are enough for the policy and for the quorum of the job. Every other end of a job that was
 * at work is `failed`, because a job COB has no other word. Of runners that it does not believe it says nothing.
 */
export function wordFor(
  { job, spec, runs }: Pick<JobDetail, "job" | "spec" | "runs">,
  statements: readonly SignedClaims[],
  { keys, policy }: Trust,
  nowMs: number,
): { word: Word; why?: string } {
  const isByBelieved = runs.some(({ runner, state }) => state !== "assigned" && keys.has(runner));
  if (!isByBelieved) return { word: "nothing" };
  if (!isFinalJobState(job.state)) return { word: "started" };
  if (job.state !== "succeeded" && job.state !== "skipped") return { word: "failed" };
  // What was skipped was there already: who signs that has seen the same as who has built it.
  const said = statements.map(({ claims, ...signed }) => ({
    ...signed,
    claims: claims.result === "skipped" ? { ...claims, result: "succeeded" as const } : claims,
  }));
  const quorum = spec.quorum ?? null;
  if (policy === null && quorum === null)
    return said.some(({ claims }) => claims.result === "succeeded")
      ? { word: "succeeded" }
      : { word: "failed", why: "nobody whom it believes has signed that it succeeded" };
  const ref = job.source?.ref ?? "";
  const { verdict, detail } = decideForReader(said, { keys, policy, quorum, ref }, nowMs);
  return verdict === "agreed" ? { word: "succeeded" } : { word: "failed", why: detail };
}
