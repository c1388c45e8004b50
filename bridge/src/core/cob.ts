import {
  decideForReader,
  type ExpandedStep,
  expandedSteps,
  isDefaultPolicy,
  isFinalJobState,
  type JobDetail,
  parseRadicleUrl,
  type SignedClaims,
  type Task,
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

/** A step whose success has to be signed too, and the task that its runner was given; null for a file that nobody can have read so. */
export type SilentStep = { name: string; task: Task | null };

/**
 * The steps that have to have succeeded before a commit whose task file became jobs has: all that the runner that read the file has signed, so that no broker can
 * leave one out. Not those that a stranger's commit does not get, nor what needs them. None for a job that did the work itself.
 */
export function stepsToHear({ spec }: Pick<JobDetail, "spec">, statements: readonly SignedClaims[]): SilentStep[] {
  const task = spec.task.kind === "repository" ? spec.task : ({ kind: "repository" } as const);
  return statements.flatMap(({ claims: { expansion, untrusted } }): SilentStep[] => {
    const steps = expansion === undefined ? [] : expandedSteps(expansion);
    if ("fault" in steps) return [{ name: steps.fault, task: null }];
    const left = untrusted ? notForStrangers(steps) : new Set();
    return steps.filter(({ step }) => !left.has(step.job)).map(({ name, step }) => ({ name, task: { ...task, step } }));
  });
}

/** The jobs of a file that ask for what no stranger gets, and those that need them, which stand behind. */
function notForStrangers(steps: readonly ExpandedStep[]): Set<string> {
  const left = new Set<string>();
  for (const { step, secrets, locks, needs } of steps)
    if (step.kind === "effect" || secrets.length > 0 || locks.length > 0 || needs.some((need) => left.has(need)))
      left.add(step.job);
  return left;
}
