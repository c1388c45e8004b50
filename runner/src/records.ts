import { assignmentSchema, resultBodySchema } from "@plumule/protocol";
import * as z from "zod";

/**
 * What the journal keeps, by key: `poll` holds the request key under which the runner asks for work, and each run id its assignment and how far
 * it came. A persisted contract: a newer runner reads what an older one wrote.
 */
export const journalRecordSchema = z.union([
  z.object({ requestKey: z.string() }),
  z.object({ assignment: assignmentSchema, state: z.enum(["assigned", "running"]), startedAt: z.string().nullable() }),
]);
export type JournalRecord = z.output<typeof journalRecordSchema>;
export type RunRecord = Extract<JournalRecord, { assignment: unknown }>;

/** Whether a key has brought its assignment already: the runner was ended between writing the one and removing the other. */
export function isSpentKey(poll: JournalRecord | undefined, runs: readonly RunRecord[]): boolean {
  return (
    poll !== undefined &&
    "requestKey" in poll &&
    runs.some(({ assignment }) => assignment.requestKey === poll.requestKey)
  );
}

/** A finished run that the broker has not acknowledged: the result, and the log that goes before it. A persisted contract. */
export const spoolRecordSchema = z.object({
  assignment: assignmentSchema,
  result: resultBodySchema,
  logPath: z.string(),
});
export type SpoolRecord = z.output<typeof spoolRecordSchema>;

/** Reads a record of a schema, or null for anything else. */
export function recordReader<S extends z.ZodType>(schema: S): (value: unknown) => z.output<S> | null {
  return (value) => schema.safeParse(value).data ?? null;
}
