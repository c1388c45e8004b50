import {
  type ExpandedStep,
  ISOLATION_LEVELS,
  type JobId,
  LIMITS,
  locksSchema,
  makeJobId,
  type Reason,
  type Requires,
  requiresSchema,
  type SubmitBody,
} from "@plumule/protocol";
import type { Brief, Job } from "./model.ts";
import { newJob } from "./submit.ts";
import { reason, type Work } from "./work.ts";

/** A step of a task file as the body of a job; with `refusal` one that is not run, because nobody allowed what the file asks for. */
export type PlannedStep = { step: ExpandedStep; body: SubmitBody; refusal: Reason | null };

/** A step with what has to be made outside, because this folder neither hashes nor draws randomness. `random`: eight bytes for the job's id. */
export type StepDraft = PlannedStep & {
  brief: Brief;
  taskSha256: string;
  configurationSha256: string | null;
  random: Uint8Array;
};

/** Whether the task file that a job reads may become jobs of its lane: not with a quorum, whose votes are about one run, and not for a teardown. */
export function mayExpand({ brief, teardown }: Job): boolean {
  return brief.kind === "repository" && brief.quorum === undefined && !teardown;
}

/**
 * The bodies of the jobs that a file asks for, made of what was submitted. The file narrows it freely: more to require, more locks. What gives power it only
 * picks from what was submitted: secrets by name, effects where the task allows them. To a stranger's file nothing is given at all.
 */
export function planSteps(spec: SubmitBody, brief: Brief, steps: readonly ExpandedStep[]): PlannedStep[] {
  const { mode: _mode, hold: _hold, debounce: _debounce, dedupeKey: _key, requires, locks, secrets, ...rest } = spec;
  return steps.map((step) => {
    const given = secrets?.filter(({ name }) => step.secrets.includes(name)) ?? [];
    const held = [...new Set([...(locks ?? []), ...step.locks])];
    const wanted = narrowed(requires ?? {}, step.requires);
    const refusal = powerFault(spec, brief, step) ?? limitFault(wanted, held);
    const body: SubmitBody = {
      ...rest,
      task: spec.task.kind === "repository" ? { ...spec.task, step: step.step } : spec.task,
      mode: "queue",
      // What is refused is never run, and has to be a body all the same.
      ...(Object.keys(wanted).length === 0 || refusal !== null ? {} : { requires: wanted }),
      ...(held.length === 0 || refusal !== null ? {} : { locks: held }),
      ...(given.length === 0 || refusal !== null ? {} : { secrets: given }),
    };
    return { step, body, refusal };
  });
}

function narrowed(base: Requires, step: Requires): Requires {
  const both = (name: "systems" | "features" | "labels"): Partial<Requires> => {
    const list = [...new Set([...(base[name] ?? []), ...(step[name] ?? [])])];
    return list.length === 0 ? {} : { [name]: list };
  };
  const levels = [base.isolation, step.isolation].flatMap((level) => (level === undefined ? [] : [level]));
  const isolation = ISOLATION_LEVELS.findLast((level) => levels.includes(level));
  return {
    ...base,
    ...both("systems"),
    ...both("features"),
    ...both("labels"),
    ...(isolation === undefined ? {} : { isolation }),
  };
}

function powerFault(spec: SubmitBody, { stranger }: Brief, { step, locks, secrets }: ExpandedStep): Reason | null {
  if (stranger !== undefined) {
    const wants = [
      ...(step.kind === "effect" ? ["an effect"] : []),
      ...secrets.map((name) => `the secret ${name}`),
      ...locks.filter((name) => spec.locks?.includes(name) !== true).map((name) => `the lock ${name}`),
    ];
    return wants.length === 0
      ? null
      : reason(
          "refused",
          `Not run: the task file asks for ${wants.join(", ")}, which the commit of a stranger does not get.`,
        );
  }
  const missing = secrets.filter((name) => spec.secrets?.some((secret) => secret.name === name) !== true);
  if (missing.length > 0)
    return reason(
      "refused",
      `The task file asks for the secret ${missing.join(", ")}, which the job was not submitted with: name it in \`secrets\` beside the trigger rule, or with \`plumule submit --secret\`.`,
    );
  return step.kind === "effect" && (spec.task.kind !== "repository" || spec.task.effects !== true)
    ? reason(
        "refused",
        "The task file asks for an effect, which the job was not submitted for: set `effects` in the task of the trigger rule, or `plumule submit --effects`.",
      )
    : null;
}

function limitFault(requires: Requires, locks: readonly string[]): Reason | null {
  if (!requiresSchema.safeParse(requires).success)
    return reason("refused", "With what was submitted, the task file requires more than a job can.");
  return locks.length === 0 || locksSchema.safeParse(locks).success
    ? null
    : reason(
        "refused",
        `With those that were submitted it has ${locks.length} locks; a job has at most ${LIMITS.jobLocks}.`,
      );
}

/** Ends the job that has read the file, and queues what it asks for, in the same decision. The answer is what was queued. Where there is no room for all, nothing is queued, and the job has failed. */
export function expand(work: Work, job: Job, drafts: readonly StepDraft[]): { job: JobId; spec: SubmitBody }[] {
  const fault = roomFault(work, job, drafts.length);
  if (fault !== null) {
    work.move(job, "reported", "failed", { reason: fault });
    return [];
  }
  const first = Math.max(work.now, work.lane.lastJobAt + 1);
  const made = drafts.map((draft, index) => ({
    ...draft,
    id: makeJobId(first + index, draft.random),
    at: first + index,
  }));
  work.lane = {
    ...work.lane,
    lastJobAt: first + made.length - 1,
    sweepAt: work.lane.sweepAt ?? work.now + LIMITS.idempotencyMs,
  };
  const { scheduledBy } = job;
  const origin = { rerunOf: null, teardown: false, ...(scheduledBy === undefined ? {} : { scheduledBy }) };
  for (const { id, at, step, refusal, ...draft } of made) {
    const { name, needs } = step;
    const fresh = newJob({ ...draft, ...origin }, id, at, job.actor, {
      burstAt: null,
      ready: null,
    });
    const queued = work.move(
      { ...fresh, step: { parent: job.id, name, job: step.step.job, needs } },
      "submitted",
      "queued",
    );
    if (refusal !== null)
      work.move(queued, "not allowed", job.brief.stranger === undefined ? "failed" : "skipped", { reason: refusal });
  }
  // Last, so that whoever hears of its end has heard of them.
  work.move(job, "reported", "succeeded", { reason: null, steps: made.map(({ id }) => id) });
  return made.map(({ id, body }) => ({ job: id, spec: body }));
}

function roomFault(work: Work, job: Job, count: number): Reason | null {
  if (work.lane.removing || work.jobs.some(({ teardown }) => teardown))
    return reason("deleted", `The deployment is being removed; the ${count} jobs of the task file are not queued.`);
  const { stranger } = job.brief;
  const others = work.jobs.filter(
    (one) => one.id !== job.id && (stranger === undefined || one.brief.stranger !== undefined),
  );
  const most = stranger === undefined ? LIMITS.pendingJobs : LIMITS.strangersJobs;
  return others.length + count <= most
    ? null
    : reason(
        "refused",
        `The task file asks for ${count} jobs, ${others.length} wait in this deployment, and ${most} is the limit.`,
      );
}
