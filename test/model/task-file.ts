import { expandedSteps, type Expansion, type SubmitBody } from "@plumule/protocol";
import { briefOf } from "#durable-objects/deployment/bodies.ts";
import { planSteps, type StepDraft } from "#durable-objects/deployment/core/expansion.ts";
import type { Result, Told, World } from "./world.ts";

/** The task file of every job that has one: an effect with a plan, and what comes after it. */
const FILE: Expansion["jobs"] = {
  deploy: { kind: "effect", planned: true },
  smoke: { kind: "shell", needs: ["deploy"] },
};

/** The numbers of its steps: such a job is alone in its world, so that its steps come right after it. */
const NUMBERS: Readonly<Record<string, number>> = { deploy: 1, smoke: 2 };

/** What its deployment makes of it; there is no other file, so that it is made once. */
const drafts = (retry: SubmitBody["retry"] = {}): StepDraft[] => {
  const steps = expandedSteps({ jobs: FILE });
  if ("fault" in steps) throw new Error(steps.fault);
  const spec: SubmitBody = { task: { kind: "repository", effects: true }, retry };
  return planSteps(spec, briefOf(spec), steps).map((planned) => ({
    ...planned,
    brief: briefOf(planned.body),
    taskSha256: "",
    configurationSha256: null,
    random: new Uint8Array(8),
  }));
};
const made = new Map<string, StepDraft[]>();

/** What a result asks to be queued, if that was its job. */
export function stepsOf({ state }: World, { lease, outcome }: Result): readonly StepDraft[] {
  const job = state.jobs.find(({ id }) => id === lease.job);
  if (job?.brief.kind !== "repository" || outcome !== "succeeded") return [];
  const key = JSON.stringify(job.brief.retry);
  const known = made.get(key) ?? drafts(job.brief.retry);
  made.set(key, known);
  return known;
}

/** What a step needs by the file itself, whatever its record says, and has not ended well; null when nothing is in its way. */
export function unmetNeed(told: readonly Told[], name: string): string | null {
  const states = new Map((FILE[name]?.needs ?? []).map((need) => [need, told[NUMBERS[need] ?? -1]?.state]));
  const unmet = [...states].find(([, state]) => state !== "succeeded" && state !== "skipped");
  return unmet === undefined ? null : `${name} before ${unmet.join(", which is ")}`;
}
