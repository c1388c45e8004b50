import { open, readFile } from "node:fs/promises";
import { LIMITS, toBase64 } from "@plumule/protocol";
import { createBackoff, pause } from "../backoff.ts";
import type { BrokerAnswer, StandaloneCalls } from "../broker.ts";
import type { Desk } from "./desk.ts";
import { type LocalJob, saysNothing } from "./local-job.ts";

/** Longest pause before a broker that is away is told again, ms: nobody holds a lease that could end meanwhile. */
const RETRY_MAX_MS = 60_000;

/**
 * Tells the broker of every job of the desk that has ended, one after the other, for as long as it takes: result and log. The broker keeps
 * it once, whatever is told twice. Resolves when the signal aborts. Never rejects.
 */
export async function fillIn(
  { desk, broker, say }: { desk: Desk; broker: StandaloneCalls; say: (line: string) => void },
  stopped: AbortSignal,
): Promise<void> {
  const backoff = createBackoff(1_000, RETRY_MAX_MS);
  while (!stopped.aborted) {
    const change = desk.change();
    const job = nextUntold(desk);
    if (job === undefined) {
      await untilAborted(AbortSignal.any([stopped, change]));
      continue;
    }
    const refusal = await tell(broker, desk, job);
    if (refusal === "later") {
      await pause(1_000 + backoff.next(), stopped);
      continue;
    }
    backoff.reset();
    say(`job ${job.job}: ${refusal}`);
    await desk.note(job.job, { told: true }).catch((error: unknown) => say(String(error)));
  }
}

/** Resolves when the broker has been told of everything, or when the signal aborts. */
export async function untilTold(desk: Desk, signal: AbortSignal): Promise<void> {
  for (let change = desk.change(); !signal.aborted && nextUntold(desk) !== undefined; change = desk.change())
    await untilAborted(AbortSignal.any([signal, change]));
}

function nextUntold(desk: Desk): LocalJob | undefined {
  return desk.list().find(({ state, told }) => state === "ended" && !told);
}

/** What became of it, in words, or that it has to be tried again. */
async function tell(broker: StandaloneCalls, desk: Desk, job: LocalJob): Promise<string> {
  const { deployment, run, spec, result } = job;
  if (result === null || saysNothing(result)) return "nothing to tell the broker";
  const log = await readSmallLog(desk.logOf(job), result.log.bytes);
  const sent = log === null ? result : { ...result, logTail: { offset: 0, base64: toBase64(log) } };
  const answer = await broker.recordStandalone(deployment, { job: job.job, run, spec, result: sent });
  if (!answer.ok) return answer.retry ? "later" : `the broker does not take it: ${answer.problem.detail}`;
  const { recorded, job: known, logBytes } = answer.value;
  if (!recorded) return `the broker has the result of job ${known} for the same work, which came first`;
  const place = { deployment, run };
  const unsent = await sendLog(broker, place, desk.logOf(job), { from: logBytes, to: result.log.bytes });
  return unsent ?? `the broker knows of it now, in ${deployment}`;
}

/** A log that can ride on the result; null when it is too long for that, or gone. */
async function readSmallLog(path: string, bytes: number): Promise<Uint8Array | null> {
  const log = bytes > LIMITS.logTailBytes ? null : await readFile(path).catch(() => null);
  return log?.length === bytes ? log : null;
}

/** Sends what the broker lacks of the log; null when it has all, or takes no more. */
async function sendLog(
  broker: StandaloneCalls,
  place: { deployment: string; run: string },
  path: string,
  { from, to }: { from: number; to: number },
): Promise<string | null> {
  if (from >= to) return null;
  const file = await open(path, "r").catch(() => null);
  if (file === null) return "its log is gone; the broker has the result alone";
  const buffer = new Uint8Array(LIMITS.logChunkBytes);
  try {
    for (let offset = from; offset < to;) {
      const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, to - offset), offset);
      if (bytesRead === 0) return "the end of its log is gone; the broker has the rest";
      const answer: BrokerAnswer<{ bytes: number }> = await broker.appendStandaloneLog(
        place,
        offset,
        buffer.subarray(0, bytesRead),
      );
      if (answer.ok) offset = answer.value.bytes;
      else if (answer.logSize !== null) offset = answer.logSize;
      else return answer.retry ? "later" : `the broker does not take its log: ${answer.problem.detail}`;
    }
    return null;
  } finally {
    await file.close();
  }
}

function untilAborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
