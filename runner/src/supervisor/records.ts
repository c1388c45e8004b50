import {
  expansionSchema,
  isolationSchema,
  outcomeSchema,
  outputSchema,
  reasonSchema,
  runChangesSchema,
  runnerEventsBodySchema,
  sha256Schema,
  timeSchema,
} from "@plumule/protocol";
import * as z from "zod";
import { SUPERVISOR_VERSION } from "./files.ts";

/** Who does the work of a run, as the journal names it. A persisted contract. */
export const supervisorSchema = z.object({
  version: z.literal(SUPERVISOR_VERSION),
  pid: z.int().min(2),
  startedAt: z.string(),
  boot: z.string(),
});

/** How a run ended, in `exit.json`: all that its result says, but for signatures. A persisted contract: a newer runner reads it. */
export const exitRecordSchema = z.object({
  version: z.literal(SUPERVISOR_VERSION),
  outcome: outcomeSchema,
  exitCode: z.int().nullable(),
  reason: reasonSchema.nullable(),
  targets: z.array(z.object({ attribute: z.string(), drv: z.string(), outputs: z.array(outputSchema) })),
  log: z.object({ bytes: z.int(), sha256: z.string(), omittedBytes: z.int() }),
  finishedAt: timeSchema,
  /** How the job's processes were held together, null when none was started; missing in records of older versions. */
  isolation: isolationSchema.nullable().optional(),
  /** How often each secret was masked; missing for a run that opened none. */
  redactions: z.record(z.string(), z.int()).optional(),
  /** What the runner's owner should know, and nobody else. */
  note: z.string().optional(),
  /** Of the checkout when the work had ended, null when it had none; missing where the checkout itself can still be looked at. */
  flakeLockSha256: z.string().nullable().optional(),
  /** The plan that the run made, with its text, or that it applied. */
  plan: z.object({ sha256: sha256Schema, text: z.string().optional() }).optional(),
  /** What it has changed in its checkout, where that is known. */
  changes: runChangesSchema.optional(),
  /** The schedules of the task file for the branch, of a run of all of it that ended well. */
  schedules: z.array(z.object({ name: z.string(), cron: z.string() })).optional(),
  /** What the task file asks for whose steps are to be jobs of the lane. */
  expansion: expansionSchema.optional(),
  survivors: z.object({ killedCount: z.int(), leftoverCount: z.int() }),
});
export type ExitRecord = z.output<typeof exitRecordSchema>;

/** One line of `events.jsonl`: a batch as the broker takes it, once by its number. Its first number is 1, and there is no gap. */
export const eventBatchSchema = runnerEventsBodySchema.omit({ epoch: true });
export type EventBatch = z.output<typeof eventBatchSchema>;
