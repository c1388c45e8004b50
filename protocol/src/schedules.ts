import * as z from "zod";
import { readCron } from "./cron.ts";
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

/** A schedule as the result of a run states it: it was in the task file at the commit, and is for the branch that the run was about. */
export const statedScheduleSchema = z.looseObject({ name: scheduleNameSchema, cron: cronSchema });
export type StatedSchedule = Pick<z.output<typeof statedScheduleSchema>, "name" | "cron">;
