import { refuse, type Refusal } from "@plumule/protocol";
import type { Job } from "./model.ts";
import { isUnmet } from "./needs.ts";

/**
 * The steps of a task file that come back with one that is done once more: those that were not run because of it, and all else that they need has ended well.
 * `steps` is the newest job of each step of the file, in their order. Refused for a step that nobody has allowed, or that needs one which ended otherwise than well.
 */
export function comingBack(job: Job, steps: readonly Job[]): Job[] | Refusal {
  if (job.runs.length === 0 && job.reason?.code === "refused")
    return refuse("wrong-state", `Job ${job.id} was never allowed. ${job.reason.detail}`, {
      next: "Submit the whole again, with what it asks for.",
    });
  const needsOf = ({ step }: Job): Job[] => steps.filter((one) => one.step && step?.needs.includes(one.step.job));
  const unmet = needsOf(job).find(isUnmet);
  if (unmet !== undefined)
    return refuse("wrong-state", `Job ${job.id} needs \`${unmet.step?.name}\`, which ended ${unmet.state}.`, {
      next: `Rerun job ${unmet.id}: what was not run because of it comes with it.`,
    });
  const names = new Set([job.step?.name]);
  const isBack = ({ step }: Job): boolean => names.has(step?.name);
  const followers: Job[] = [];
  // What a step needs comes before it.
  for (const one of steps) {
    const needs = needsOf(one);
    const wasLeft = one.state === "skipped" && one.reason?.need !== undefined;
    if (!wasLeft || !needs.some(isBack) || needs.some((need) => !isBack(need) && isUnmet(need))) continue;
    names.add(one.step?.name);
    followers.push(one);
  }
  return followers;
}
