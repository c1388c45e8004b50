import { type JobId, LIMITS } from "@plumule/protocol";
import type { BuiltStep, Job, Lane } from "./model.ts";

/** The job whose success a job may be skipped for, if that has built the same: that of the same step, or what is live where no task file became jobs. */
export function comparedWith({ builtSteps, currentJob }: Lane, { step, taskSha256 }: Job): JobId | null {
  return step === undefined ? currentJob : (builtSteps.find((one) => one.taskSha256 === taskSha256)?.job ?? null);
}

/**
 * What is known of steps that build once a job has succeeded that is live now. Only one that may be skipped takes a place; once it has that, its later successes keep
 * it, also those of a rerun, which asks for nothing. Those of strangers prove nothing to others.
 */
export function withBuilt(known: readonly BuiltStep[], { id, step, taskSha256, brief }: Job): readonly BuiltStep[] {
  if (step === undefined || brief.stranger !== undefined) return known;
  const others = known.filter((one) => one.taskSha256 !== taskSha256);
  const isWanted = brief.skipUnchanged === true && brief.kind === "nix-build";
  return isWanted || others.length < known.length
    ? [...others, { taskSha256, job: id }].slice(-LIMITS.builtSteps)
    : known;
}
