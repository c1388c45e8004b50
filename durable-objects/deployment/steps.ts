import {
  digestsOf,
  expandedSteps,
  type Expansion,
  LIMITS,
  refuse,
  type Refusal,
  type ResultBody,
  type SubmitBody,
} from "@plumule/protocol";
import { briefOf } from "./bodies.ts";
import { mayExpand, planSteps, type StepDraft } from "./core/expansion.ts";
import type { Job } from "./core/model.ts";

/**
 * The steps that the task file of a job asks for, as a runner has signed it, ready to be queued; none for a result without any. An expansion that no task
 * file and no job like this can lead to is a fault of the runner, and refused.
 */
export async function draftSteps(
  job: Job,
  spec: SubmitBody | null,
  { outcome, expansion }: Pick<ResultBody, "outcome"> & { expansion: Expansion | null },
): Promise<StepDraft[] | Refusal> {
  if (expansion === null) return [];
  if (outcome !== "succeeded" || spec === null || !mayExpand(job))
    return refuseExpansion("of this job no steps are taken");
  const steps = expandedSteps(expansion);
  if ("fault" in steps) return refuseExpansion(steps.fault);
  const planned = planSteps(spec, job.brief, steps);
  const characters = planned.reduce((sum, { body }) => sum + JSON.stringify(body).length, 0);
  if (characters > LIMITS.expandedCharacters)
    return refuseExpansion(`its jobs have ${characters} characters, at most ${LIMITS.expandedCharacters} are taken`);
  const { configurationSha256 } = job;
  return Promise.all(
    planned.map(async (one) => ({
      ...one,
      brief: { ...briefOf(one.body), ...(job.brief.stranger === undefined ? {} : { stranger: job.brief.stranger }) },
      taskSha256: (await digestsOf({ task: one.body.task })).taskSha256,
      configurationSha256,
      random: crypto.getRandomValues(new Uint8Array(8)),
    })),
  );
}

function refuseExpansion(detail: string): Refusal {
  return refuse("invalid-statement", `The result is not accepted. expansion: ${detail}`, {
    errors: [{ pointer: "/statements/0", detail: `expansion: ${detail}` }],
  });
}
