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

/** How long output is gathered before a request, ms. The first lines go sooner, because somebody is looking at an empty page. */
const GATHER_MS = 500;
const FIRST_GATHER_MS = 100;

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

  const work = async (): Promise<void> => {
    await pause(offset === 0 ? FIRST_GATHER_MS : GATHER_MS, stopped.signal);
    while (offset < file.size() && !stopped.signal.aborted) {
      const chunk = await file.read(offset, LIMITS.logAppendBytes);
      const answer = await send(offset, chunk);
      if (answer.ok) {
        offset = answer.value.bytes;
        backoff.reset();
        if (chunk.byteLength < LIMITS.logAppendBytes) return;
      } else if (answer.logSize !== null) offset = answer.logSize;
      else if (answer.retry) await pause(backoff.next(), stopped.signal);
      else return stopped.abort();
    }
  };
  const grew = (): void => {
    if (stopped.signal.aborted) return;
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
