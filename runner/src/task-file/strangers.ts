import type { Step } from "./steps.ts";

/** All that a step may say which a stranger wrote: what to run, never with what rights. Times can only become shorter by it, and the deployment gives no lock for it. */
const STRANGERS_FIELDS: readonly string[] = [
  "name",
  "task",
  "job",
  "needs",
  "env",
  "matrix",
  "timeouts",
  "on",
  "requires",
  "locks",
];
const STRANGERS_TASK_FIELDS: readonly string[] = ["kind", "script", "develop", "packages", "installables"];

/**
 * Why a step is not run for a stranger, or null. The file at the commit is theirs: it says what is built and tested, which was approved
 * with the commit. Secrets, effects, locks, pool and time come from the rule and the runner alone.
 */
export function strangersFault(step: Step): string | null {
  const { name, task } = step;
  if (task.kind === "effect") return `${name}: an effect is not run for a stranger.`;
  const field =
    Object.keys(task).find((one) => !STRANGERS_TASK_FIELDS.includes(one)) ??
    Object.keys(step).find((one) => !STRANGERS_FIELDS.includes(one));
  return field === undefined ? null : `${name}: \`${field}\` is not given to the commit of a stranger.`;
}
