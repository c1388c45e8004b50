import type { Job } from "./model.ts";
import { withdraw } from "./tickets.ts";
import { needAmong } from "./turns.ts";
import { isFinal } from "./views.ts";
import type { Work } from "./work.ts";

/** Whether a step that has ended is none that others may build on. One that a runner skipped, because nothing has changed, is as good as done. */
export function isUnmet(job: Job): boolean {
  return isFinal(job) && job.state !== "succeeded" && (job.state !== "skipped" || job.runs.length === 0);
}

/** Ends what cannot come any more: each step that needs one which ended otherwise than well, and in turn those that need it. */
export function settleNeeds(work: Work): void {
  const unmet = work.touched.filter((job) => job.step !== undefined && isUnmet(job));
  if (unmet.length === 0) return;
  // What a step needs comes before it.
  for (const job of work.jobs) {
    const need = job.state === "queued" ? needAmong(unmet, job) : undefined;
    if (need?.step === undefined) continue;
    const detail = `Not run: it needs \`${need.step.name}\`, which ended ${need.state} (job ${need.id}).`;
    unmet.push(
      work.move(withdraw(work, job), "need unmet", "skipped", {
        reason: { code: "nothing-to-do", detail, need: need.step.job },
      }),
    );
  }
}
