import { type FileHandle, open, rm } from "node:fs/promises";
import { LIMITS, toBase64 } from "@plumule/protocol";
import { createBackoff, pause } from "./backoff.ts";
import type { Broker } from "./broker.ts";
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
 * Delivers results in order, each after the rest of its log, for as many days as it takes. A result leaves the spool with a 2xx or with a
 * refusal that will not change; then its log file goes too, since the broker has what it wanted of it.
 */
export function createDeliverer(
  broker: Broker,
  spool: Spool<SpoolRecord>,
  stopped: AbortSignal,
  say: (line: string) => void,
): Deliverer {
  const backoff = createBackoff(500, 60_000);
  let working: Promise<void> | null = null;

  const deliverAll = async (): Promise<void> => {
    for (let next = spool.pending()[0]; next !== undefined && !stopped.aborted; next = spool.pending()[0]) {
      const done = await deliver(broker, next.record, say);
      if (done) {
        await spool.remove(next.runId);
        await rm(next.record.logPath, { force: true });
        backoff.reset();
      } else await pause(250 + backoff.next(), stopped);
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
  { assignment, result, logPath }: SpoolRecord,
  say: (line: string) => void,
): Promise<boolean> {
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

/** Uploads all but what can ride on the result. `refused`: the broker takes no more log of this run. */
async function sendLog(
  broker: Broker,
  assignment: SpoolRecord["assignment"],
  logPath: string,
  bytes: number,
): Promise<{ offset: number } | "refused" | "later"> {
  if (bytes <= LIMITS.logTailBytes) return { offset: 0 };
  const file = await open(logPath, "r").catch(() => null);
  if (file === null) return "refused";
  try {
    // How much the broker has is asked with the first bytes, which it has or takes.
    for (let offset = 0, probe = true; bytes - offset > LIMITS.logTailBytes; probe = false) {
      const chunk = await readAt(file, offset, probe ? 1 : Math.min(LIMITS.logChunkBytes, bytes - offset));
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

async function readAt(file: FileHandle, offset: number, length: number): Promise<Uint8Array> {
  const buffer = new Uint8Array(length);
  const { bytesRead } = await file.read(buffer, 0, length, offset);
  return buffer.subarray(0, bytesRead);
}

async function readTail(logPath: string, offset: number, bytes: number): Promise<{ offset: number; base64: string }> {
  const file = await open(logPath, "r").catch(() => null);
  if (file === null) return { offset, base64: "" };
  try {
    return { offset, base64: toBase64(await readAt(file, offset, bytes - offset)) };
  } finally {
    await file.close();
  }
}
