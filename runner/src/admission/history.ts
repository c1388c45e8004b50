import { readFile } from "node:fs/promises";
import * as z from "zod";
import { writeDurably } from "../durable-file.ts";

/** What is remembered of the runs of one task of one deployment, newest last. */
const entrySchema = z.object({
  key: z.string(),
  runs: z.array(z.object({ peakBytes: z.number(), durationMs: z.number() })),
});
/** A persisted form, read by later versions. It is a memory aid: one that cannot be read is begun anew. */
const historySchema = z.array(entrySchema);
type Entry = z.output<typeof entrySchema>;

/** Tasks that are remembered, those seen last. */
const KEYS_COUNT = 500;
/** Runs that are remembered of each: enough that one odd run does not decide for long. */
const RUNS_COUNT = 5;

/** How much memory and time runs have taken, by deployment and digest of the task. */
export type History = {
  /** The most that any remembered run took, and how long the last one was; null when none is remembered. */
  predict(key: string): { peakBytes: number; durationMs: number } | null;
  /** Resolves when it is on the disk. */
  record(key: string, run: { peakBytes: number; durationMs: number }): Promise<void>;
  readonly size: number;
};

/** Opens the history in a file. */
export async function openHistory(path: string): Promise<History> {
  const entries = new Map((await read(path)).map(({ key, runs }) => [key, runs]));
  let written: Promise<void> = Promise.resolve();
  return {
    get size() {
      return entries.size;
    },
    predict(key) {
      const runs = entries.get(key) ?? [];
      const last = runs.at(-1);
      if (last === undefined) return null;
      return { peakBytes: Math.max(...runs.map(({ peakBytes }) => peakBytes)), durationMs: last.durationMs };
    },
    record(key, run) {
      const runs = [...(entries.get(key) ?? []), run].slice(-RUNS_COUNT);
      entries.delete(key);
      entries.set(key, runs);
      for (const oldest of entries.keys()) {
        if (entries.size <= KEYS_COUNT) break;
        entries.delete(oldest);
      }
      const kept: Entry[] = Array.from(entries, ([name, list]) => ({ key: name, runs: list }));
      // One after the other, and a disk that is full costs no more than the memory of this run.
      written = written.then(() => writeDurably(path, JSON.stringify(kept))).catch(() => {});
      return written;
    },
  };
}

async function read(path: string): Promise<Entry[]> {
  try {
    return historySchema.safeParse(JSON.parse(await readFile(path, "utf8"))).data ?? [];
  } catch {
    return [];
  }
}
