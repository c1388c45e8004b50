import * as z from "zod";
import { commitSchema, jobIdSchema, jobOfRun, runIdSchema, sha256Schema } from "./ids.ts";
import { jobStateSchema } from "./job.ts";
import { resultBodySchema } from "./run.ts";
import { repositoryUrlSchema, submitBodySchema } from "./submit.ts";

/** Which work is asked for, by what makes up its identity (`jobIdentity`). */
export const workQuerySchema = z.strictObject({
  repository: repositoryUrlSchema,
  commit: commitSchema,
  taskSha256: sha256Schema,
  configurationSha256: sha256Schema.optional(),
});
export type WorkQuery = z.output<typeof workQuerySchema>;

/** The newest job of some work, which counts for it more than others; null where there is none. */
export const workAnswerSchema = z
  .object({ job: z.object({ id: jobIdSchema, state: jobStateSchema }).nullable() })
  .meta({ id: "WorkAnswer" });
export type WorkAnswer = z.output<typeof workAnswerSchema>;

/** A run that its runner gave itself while the broker was away: which job it makes of it, what was to be done, and the signed result, under epoch 0. */
export const standaloneBodySchema = z
  .strictObject({ job: jobIdSchema, run: runIdSchema, spec: submitBodySchema, result: resultBodySchema })
  .refine(({ spec }) => spec.source !== undefined, {
    path: ["spec", "source"],
    message: "is needed: it is part of what the job is known by",
  })
  .refine(({ spec }) => spec.task.kind !== "effect" && spec.quorum === undefined, {
    path: ["spec", "task"],
    message: "an effect, or what several runners have to agree on, is done under a lease alone",
  })
  .refine(({ job, run }) => jobOfRun(run) === job, { path: ["run"], message: "is no run of the job" })
  .refine(({ result }) => result.epoch === 0, { path: ["result", "epoch"], message: "is 0 where there was no lease" })
  .meta({ id: "StandaloneBody" });
export type StandaloneBody = z.output<typeof standaloneBodySchema>;

/**
 * What became of it. `recorded`: it is a job of the deployment now. Otherwise `job` is the one whose result came first. `logBytes`: how much of the log is stored; the rest may follow.
 */
export const standaloneAnswerSchema = z
  .object({ recorded: z.boolean(), job: jobIdSchema, state: jobStateSchema, logBytes: z.int() })
  .meta({ id: "StandaloneAnswer" });
export type StandaloneAnswer = z.output<typeof standaloneAnswerSchema>;
