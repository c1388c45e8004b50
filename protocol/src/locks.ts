import * as z from "zod";
import { deploymentIdSchema, jobIdSchema, timeSchema } from "./ids.ts";
import { LIMITS } from "./limits.ts";

/** The name of a lock inside its namespace, such as `host:king`: what two jobs must not touch at the same time. */
export const lockNameSchema = z
  .string()
  .max(LIMITS.nameCharacters)
  .regex(/^[a-z0-9][a-z0-9._:/-]*$/, "a-z, 0-9 and . _ : / -, starting with a letter or digit");
export type LockName = z.output<typeof lockNameSchema>;

/** The locks of one job, all of which it holds while it works, or none. */
export const locksSchema = z
  .array(lockNameSchema)
  .min(1)
  .max(LIMITS.jobLocks)
  .refine((names) => new Set(names).size === names.length, "a name stands twice");

/**
 * The lock that a job waits for, and how many jobs have it or come before; 0 while the namespace has not answered. `holder` is the one of them
 * that comes next or has it, for readers who may know of its deployment: it works (`works`), it ended unseen and a person has to say how (`unknown`), or it
 * waits for another lock itself (`waits`).
 */
export const lockWaitSchema = z
  .object({
    name: lockNameSchema,
    ahead: z.int().min(0),
    holder: z
      .object({ deployment: deploymentIdSchema, job: jobIdSchema, state: z.enum(["works", "unknown", "waits"]) })
      .optional(),
  })
  .meta({ id: "LockWait" });
export type LockWait = z.output<typeof lockWaitSchema>;

/** What a lock keeps a job waiting for, in one sentence for people, with the next step where somebody has to take it. */
export function describeLockWait({ name, ahead, holder }: LockWait): string {
  if (ahead === 0) return `Asks for lock ${name}.`;
  if (ahead >= LIMITS.lockRequests)
    return `Waits for lock ${name}: ${LIMITS.lockRequests} jobs have locks or wait for some, which is the limit.`;
  if (holder === undefined) return `Waits for lock ${name}, which another job has or gets first.`;
  const job = `job ${holder.job} of deployment ${holder.deployment}`;
  switch (holder.state) {
    case "works":
      return `Waits for lock ${name}, used by ${job}.`;
    case "waits":
      return `Waits for lock ${name}, which ${job} gets first.`;
    case "unknown":
      return `Waits for lock ${name}, kept by ${job}, whose end nobody saw. Look, then say how it ended: \`plumule resolve ${holder.job} succeeded\` or \`failed\``;
  }
}

const partySchema = z.object({ deployment: deploymentIdSchema, job: jobIdSchema, since: timeSchema });

/**
 * A lock that is held or waited for: who has it, and since when; who waits for it, first come first (at most `LIMITS.lockWaitersShown`, of `waitingCount`). A lock
 * without a holder is kept for the first who waits, who needs another lock too. `state` of the holder is that of its job, null until it is known.
 */
export const lockViewSchema = z
  .object({
    name: lockNameSchema,
    holder: partySchema.extend({ state: z.string().nullable() }).nullable(),
    waiting: z.array(partySchema),
    waitingCount: z.int(),
  })
  .meta({ id: "Lock" });
export type LockView = z.output<typeof lockViewSchema>;
