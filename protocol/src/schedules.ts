import * as z from "zod";
import { readCron } from "./cron.ts";
import { jobIdSchema, timeSchema } from "./ids.ts";
import { LIMITS } from "./limits.ts";

/** The name of a schedule of a task file; it is the same schedule in every commit that has the name. */
export const scheduleNameSchema = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, "1 to 63 of a-z, 0-9 and hyphens");

/** A cron expression in UTC that comes, and not too often (`readCron`). */
export const cronSchema = z
  .string()
  .max(LIMITS.cronCharacters)
  .superRefine((text, context) => {
    const read = readCron(text);
    if (!read.ok) context.addIssue({ code: "custom", message: read.detail });
  });

/**
 * A schedule as the result of a run states it: it was in the task file at the commit, and is for the branch that the run was about. Whether its expression
 * can be kept is for the broker to check, so that what was signed stays readable when that changes.
 */
export const statedScheduleSchema = z.looseObject({
  name: scheduleNameSchema,
  cron: z.string().max(LIMITS.cronCharacters),
});
export type StatedSchedule = Pick<z.output<typeof statedScheduleSchema>, "name" | "cron">;

/**
 * A schedule of a deployment: `job` is the one that it repeats, `nextAt` null while somebody has paused it. `last` is when it was due last, with the job that
 * was made, or why none was.
 */
export const scheduleViewSchema = z
  .object({
    name: scheduleNameSchema,
    cron: z.string(),
    ref: z.string(),
    job: jobIdSchema,
    nextAt: timeSchema.nullable(),
    last: z.object({ at: timeSchema, job: jobIdSchema.nullable(), detail: z.string().nullable() }).nullable(),
  })
  .meta({ id: "Schedule" });
export type ScheduleView = z.output<typeof scheduleViewSchema>;
