import { assignmentSchema, resultBodySchema } from "@plumule/protocol";
import * as z from "zod";
import type { Disk } from "./core/model.ts";
import type { Journal } from "./journal.ts";
import type { Spool } from "./spool.ts";
import { supervisorSchema } from "./supervisor/records.ts";

/** The journal's key for the request key; other keys are run ids. */
export const POLL_KEY = "poll";

/**
 * What the journal keeps, by key: `poll` holds the request key under which the runner asks for work, and each run id its assignment, how far
 * it came and who works on it. A persisted contract: a newer runner reads what an older one wrote. A record with a supervisor of an unknown
 * version is no record: nobody follows its run, which ends with its lease.
 */
export const journalRecordSchema = z.union([
  z.object({ requestKey: z.string() }),
  z.object({
    assignment: assignmentSchema,
    state: z.enum(["assigned", "running"]),
    startedAt: z.string().nullable(),
    supervisor: supervisorSchema.nullable().default(null),
  }),
]);
export type JournalRecord = z.output<typeof journalRecordSchema>;
export type JournaledRun = Extract<JournalRecord, { assignment: unknown }>;

/** What journal and spool hold, as the core sees it. */
export function readDisk(journal: Journal<JournalRecord>, spool: Spool<SpoolRecord>): Disk {
  const poll = journal.get(POLL_KEY);
  return {
    key: poll !== undefined && "requestKey" in poll ? poll.requestKey : null,
    runs: journaledRuns(journal).map(({ assignment, state, supervisor }) => ({
      run: assignment.run,
      requestKey: assignment.requestKey,
      state,
      supervisor,
    })),
    spool: spool.pending().map(({ runId }) => runId),
  };
}

/** The runs of a journal. */
export function journaledRuns(journal: Journal<JournalRecord>): JournaledRun[] {
  return [...journal.list().values()].filter((record): record is JournaledRun => "assignment" in record);
}

/**
 * A finished run that the broker has not acknowledged: the result, the log that goes before it, the events that go before both when the broker
 * may lack some, and the folder that goes when all is delivered. A persisted contract.
 */
export const spoolRecordSchema = z.object({
  assignment: assignmentSchema,
  result: resultBodySchema,
  logPath: z.string(),
  eventsPath: z.string().optional(),
  folder: z.string().optional(),
});
export type SpoolRecord = z.output<typeof spoolRecordSchema>;

/** Reads a record of a schema, or null for anything else. */
export function recordReader<S extends z.ZodType>(schema: S): (value: unknown) => z.output<S> | null {
  return (value) => schema.safeParse(value).data ?? null;
}
