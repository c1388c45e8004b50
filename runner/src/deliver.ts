import { type FileHandle, open } from "node:fs/promises";
import { LIMITS, toBase64 } from "@plumule/protocol";
import { createBackoff, pause } from "./backoff.ts";
import type { Broker } from "./broker.ts";
import { readBatches } from "./event-feed.ts";
import type { SpoolRecord } from "./records.ts";
import type { Spool } from "./spool.ts";

/** Sends spooled results until the broker has them. */
export type Deliverer = {
  /** A result was put into the spool. */
  wake(): void;
  /** Resolves when the spool is empty, or when `signal` is aborted. */
  drained(signal: AbortSignal): Promise<void>;
};

/**
 * Longest pause before a result is sent again, ms: no heartbeat keeps the lease of a run that has ended, so that on a bad network the result has to
 * arrive within what is left of it, or the job runs again.
 */
const RETRY_MAX_MS = 10_000;

/**
 * Delivers results in order, each after the rest of its log and events, for as many days as it takes. `answered` is told of each try; `final`
 * means a 2xx or a refusal that will not change, and that the result has left the spool when the promise resolves.
 */
export function createDeliverer({
  broker,
  spool,
  stopped,
  say,
  answered,
}: {
  broker: Broker;
  spool: Spool<SpoolRecord>;
  stopped: AbortSignal;
  say: (line: string) => void;
  answered: (run: string, final: boolean) => Promise<void>;
}): Deliverer {
  const backoff = createBackoff(500, RETRY_MAX_MS);
  let working: Promise<void> | null = null;

  const deliverAll = async (): Promise<void> => {
    for (let next = spool.pending()[0]; next !== undefined && !stopped.aborted; next = spool.pending()[0]) {
      const final = await deliver(broker, next.record, say);
      await answered(next.runId, final);
      if (final) backoff.reset();
      else await pause(250 + backoff.next(), stopped);
    }
  };
  const wake = (): void => {
    working ??= deliverAll().finally(() => {
      working = null;
      if (spool.pending().length > 0 && !stopped.aborted) wake();
    });
  };
  return {
    wake,
    async drained(signal) {
      while (spool.pending().length > 0 && !signal.aborted && !stopped.aborted) {
        wake();
        await Promise.race([working, pause(60_000, signal)]);
      }
    },
  };
}

/** True when nothing more can be done for this result. */
async function deliver(
  broker: Broker,
  { assignment, result, logPath, eventsPath }: SpoolRecord,
  say: (line: string) => void,
): Promise<boolean> {
  if (eventsPath !== undefined && !(await sendEvents(broker, assignment, eventsPath, result.events?.number)))
    return false;
  const sent = await sendLog(broker, assignment, logPath, result.log.bytes);
  if (sent === "later") return false;
  const body =
    sent === "refused" ? result : { ...result, logTail: await readTail(logPath, sent.offset, result.log.bytes) };
  const answer = await broker.result(assignment, body);
  if (!answer.ok && answer.retry) return false;
  if (!answer.ok) say(`run ${assignment.run}: the broker refused the result: ${answer.problem.detail}`);
  else if (answer.value.late)
    say(`run ${assignment.run}: the result came after the lease had ended; the broker kept it for the record`);
  return true;
}

/** Sends the batches before the one that rides on the result. False: later. */
async function sendEvents(
  broker: Broker,
  assignment: SpoolRecord["assignment"],
  eventsPath: string,
  before: number = Infinity,
): Promise<boolean> {
  let reported = 0;
  for (const batch of await readBatches(eventsPath)) {
    if (batch.number <= reported || batch.number >= before) continue;
    const answer = await broker.report(assignment, batch);
    if (answer.ok) reported = answer.value.number;
    else if (answer.retry) return false;
    else if (answer.problem.code === "stale-lease") return true;
  }
  return true;
}

/**
 * Uploads all but what can ride on the result. `refused`: there is no more log of this run to be had, or none that the broker takes. The offset
 * lies beyond the end when the broker has more than is left here.
 */
async function sendLog(
  broker: Broker,
  assignment: SpoolRecord["assignment"],
  logPath: string,
  bytes: number,
): Promise<{ offset: number } | "refused" | "later"> {
  if (bytes <= LIMITS.logTailBytes) return { offset: 0 };
  const file = await open(logPath, "r").catch(() => null);
  if (file === null) return "refused";
  const buffer = new Uint8Array(Math.min(LIMITS.logUnpackedBytes, bytes));
  try {
    // How much the broker has is asked with the first bytes, which it has or takes.
    for (let offset = 0, probe = true; bytes - offset > LIMITS.logTailBytes; probe = false) {
      const chunk = await readAt(file, offset, buffer.subarray(0, probe ? 1 : bytes - offset));
      // A power cut may have taken the end of the file. What the broker lacks then it will never have.
      if (chunk.length === 0) return "refused";
      const answer = await broker.appendLog(assignment, offset, chunk);
      if (answer.ok) offset = answer.value.bytes;
      else if (answer.logSize !== null) offset = answer.logSize;
      else return answer.retry ? "later" : "refused";
      if (bytes - offset <= LIMITS.logTailBytes) return { offset };
    }
    return { offset: bytes };
  } finally {
    await file.close();
  }
}

async function readAt(file: FileHandle, offset: number, buffer: Uint8Array): Promise<Uint8Array> {
  const { bytesRead } = await file.read(buffer, 0, buffer.length, offset);
  return buffer.subarray(0, bytesRead);
}

async function readTail(logPath: string, offset: number, bytes: number): Promise<{ offset: number; base64: string }> {
  const file = await open(logPath, "r").catch(() => null);
  if (file === null) return { offset, base64: "" };
  try {
    return { offset, base64: toBase64(await readAt(file, offset, new Uint8Array(Math.max(0, bytes - offset)))) };
  } finally {
    await file.close();
  }
}
