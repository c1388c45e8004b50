import { openJournal } from "./journal.ts";

/** A result that the broker has not acknowledged yet. */
export interface SpooledResult<Entry> {
  runId: string;
  record: Entry;
}

/** Whether a result was taken. `full`: the quota is used up; `disk`: the disk refused it. */
export type SpoolAnswer = { ok: true } | { ok: false; reason: "full" | "disk"; detail: string };

/** Results that wait for the broker, through restarts and for days if need be. */
export interface Spool<Entry> {
  /** Resolves when the result is on the disk. A run's second result replaces its first and keeps its place. */
  put(runId: string, record: Entry): Promise<SpoolAnswer>;
  /** Results in the order in which their runs were first put. */
  pending(): SpooledResult<Entry>[];
  /** After the broker's final answer. An unknown run is fine. */
  remove(runId: string): Promise<void>;
  /** Bytes that are free below the quota, what is kept beside the results taken off: a runner that could not keep more should not ask for work. */
  freeBytes(): number;
  /** Files that could not be read, set aside for a person. */
  readonly setAside: readonly string[];
}

/**
 * Opens the spool in a folder of its own; `parse` gives null for what is no record, `quotaBytes` bounds the sum of its records. `besideBytes` is
 * what a record keeps on the disk beside itself: no result is refused for it, but it is room that new work would not have.
 */
export async function openSpool<Entry>(
  folder: string,
  parse: (value: unknown) => Entry | null,
  quotaBytes: number,
  besideBytes: (record: Entry) => number = () => 0,
): Promise<Spool<Entry>> {
  // A persisted contract. The number keeps the order, since neither names nor file times do.
  const journal = await openJournal(folder, (value): { number: number; record: Entry } | null => {
    if (typeof value !== "object" || value === null || !("number" in value) || !("record" in value)) return null;
    const record = parse(value.record);
    return typeof value.number === "number" && record !== null ? { number: value.number, record } : null;
  });
  const sizes = new Map([...journal.list()].map(([runId, entry]) => [runId, sizeOf(entry)]));
  let next = Math.max(0, ...[...journal.list().values()].map((entry) => entry.number)) + 1;
  const roomBytes = (): number => quotaBytes - [...sizes.values()].reduce((sum, size) => sum + size, 0);
  const freeBytes = (): number =>
    roomBytes() - [...journal.list().values()].reduce((sum, { record }) => sum + besideBytes(record), 0);
  return {
    put: async (runId, record) => {
      const entry = { number: journal.get(runId)?.number ?? next++, record };
      const before = sizes.get(runId) ?? 0;
      const size = sizeOf(entry);
      if (size > roomBytes() + before) {
        return {
          ok: false,
          reason: "full",
          detail: `${size} bytes do not fit into the spool's quota of ${quotaBytes}`,
        };
      }
      // Counted before the write, so that two results at once cannot share the last free bytes.
      sizes.set(runId, size);
      try {
        await journal.put(runId, entry);
        return { ok: true };
      } catch (error) {
        if (before === 0) sizes.delete(runId);
        else sizes.set(runId, before);
        return { ok: false, reason: "disk", detail: String(error) };
      }
    },
    pending: () =>
      [...journal.list()]
        .toSorted(([, one], [, other]) => one.number - other.number)
        .map(([runId, { record }]) => ({ runId, record })),
    remove: async (runId) => {
      await journal.remove(runId);
      sizes.delete(runId);
    },
    freeBytes,
    setAside: journal.setAside,
  };
}

function sizeOf(entry: unknown): number {
  return Buffer.byteLength(JSON.stringify(entry));
}
