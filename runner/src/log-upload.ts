import { LIMITS } from "@plumule/protocol";
import { createBackoff, pause } from "./backoff.ts";
import type { BrokerAnswer } from "./broker.ts";
import type { LogFile } from "./log-file.ts";

/** Follows a run's log to the broker while the run works. */
export type LogUpload = {
  /** Bytes were added to the file. */
  grew(): void;
  /** Ends it; what was not sent yet goes with the result. Waits for a request under way. */
  stop(): Promise<void>;
};

/** How long output is gathered before a request, ms, unless there is enough for one. The first lines go sooner, because somebody is looking at an empty page. */
const GATHER_MS = 500;
const FIRST_GATHER_MS = 100;
/** What one request may bring. */
const ENOUGH_BYTES = LIMITS.logUnpackedBytes;

/**
 * Sends the log by offset, one request at a time. It is only for those who watch: the result brings whatever is missing, so a broker that is
 * away costs the job nothing.
 */
export function createLogUpload(
  file: Pick<LogFile, "size" | "read">,
  send: (offset: number, bytes: Uint8Array) => Promise<BrokerAnswer<{ bytes: number }>>,
): LogUpload {
  const stopped = new AbortController();
  const backoff = createBackoff(500, 15_000);
  let offset = 0;
  let working: Promise<void> | null = null;
  let gathering: AbortController | null = null;

  const gather = async (): Promise<void> => {
    gathering = new AbortController();
    if (file.size() - offset < ENOUGH_BYTES)
      await pause(offset === 0 ? FIRST_GATHER_MS : GATHER_MS, AbortSignal.any([stopped.signal, gathering.signal]));
    gathering = null;
  };
  const work = async (): Promise<void> => {
    await gather();
    while (offset < file.size() && !stopped.signal.aborted) {
      const chunk = await file.read(offset, ENOUGH_BYTES);
      const end = offset + chunk.byteLength;
      const answer = await send(offset, chunk);
      if (answer.ok) {
        offset = answer.value.bytes;
        backoff.reset();
        if (chunk.byteLength < ENOUGH_BYTES && offset >= end) return;
      } else if (answer.logSize !== null) offset = answer.logSize;
      else if (answer.retry) await pause(backoff.next(), stopped.signal);
      else return stopped.abort();
    }
  };
  const grew = (): void => {
    if (stopped.signal.aborted) return;
    if (gathering !== null && file.size() - offset >= ENOUGH_BYTES) gathering.abort();
    working ??= work().finally(() => {
      working = null;
      if (offset < file.size()) grew();
    });
  };
  return {
    grew,
    async stop() {
      stopped.abort();
      await working;
    },
  };
}
