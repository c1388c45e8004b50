import { open, readFile } from "node:fs/promises";
import { createBackoff, pause } from "./backoff.ts";
import type { BrokerAnswer } from "./broker.ts";
import { type EventBatch, eventBatchSchema } from "./supervisor/records.ts";

/** Sends a batch; the answer says which number the broker has applied. */
export type SendBatch = (batch: EventBatch) => Promise<BrokerAnswer<{ number: number }>>;

/** Follows a run's events to the broker while the run works. */
export type EventFeed = {
  /** Batches were added to the file. */
  grew(): void;
  /** Ends it, and answers the number up to which the broker has them. Waits for a request under way. */
  stop(): Promise<number>;
};

/**
 * Sends the batches of `events.jsonl`, one request at a time and each as it was written: after a restart of the runner nobody knows which of
 * them the broker has, but its answer to any of them tells, and a number that it has applied changes nothing.
 */
export function createEventFeed(path: string, send: SendBatch): EventFeed {
  const stopped = new AbortController();
  const backoff = createBackoff(500, 15_000);
  const waiting: EventBatch[] = [];
  let offset = 0;
  let reported = 0;
  let working: Promise<void> | null = null;
  let hasGrown = false;

  const read = async (): Promise<void> => {
    const { text, bytes } = await readLines(path, offset);
    offset += bytes;
    waiting.push(...parseBatches(text));
  };
  const work = async (): Promise<void> => {
    while (hasGrown && !stopped.signal.aborted) {
      hasGrown = false;
      await read();
      for (let batch = waiting[0]; batch !== undefined && !stopped.signal.aborted; batch = waiting[0]) {
        const answer = batch.number <= reported ? null : await send(batch);
        if (answer?.ok === false && answer.retry) {
          await pause(250 + backoff.next(), stopped.signal);
          continue;
        }
        // A refusal for good (stale lease, too large) is not repeated: the heartbeat tells the run to stop when it must.
        backoff.reset();
        reported = Math.max(reported, batch.number, answer?.ok === true ? answer.value.number : 0);
        waiting.shift();
      }
    }
  };
  const grew = (): void => {
    hasGrown = true;
    if (stopped.signal.aborted) return;
    working ??= work().finally(() => {
      working = null;
      if (hasGrown) grew();
    });
  };
  return {
    grew,
    async stop() {
      stopped.abort();
      await working;
      return reported;
    },
  };
}

/** Every batch of a run, in order. A last line that a kill cut off is none. */
export async function readBatches(path: string): Promise<EventBatch[]> {
  return parseBatches(await readFile(path, "utf8").catch(() => ""));
}

function parseBatches(text: string): EventBatch[] {
  const lines = text.split("\n").filter((line) => line !== "");
  return lines.flatMap((line) => {
    try {
      return eventBatchSchema.safeParse(JSON.parse(line)).data ?? [];
    } catch {
      return [];
    }
  });
}

/** The whole lines from an offset on, and how many bytes they have. */
async function readLines(path: string, offset: number): Promise<{ text: string; bytes: number }> {
  const file = await open(path, "r").catch(() => null);
  if (file === null) return { text: "", bytes: 0 };
  try {
    const { size } = await file.stat();
    const buffer = Buffer.alloc(Math.max(0, size - offset));
    const { bytesRead } = await file.read(buffer, 0, buffer.length, offset);
    const bytes = buffer.subarray(0, bytesRead).lastIndexOf(0x0a) + 1;
    return { text: buffer.toString("utf8", 0, bytes), bytes };
  } finally {
    await file.close();
  }
}
