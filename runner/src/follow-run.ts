import { existsSync, type FSWatcher, mkdirSync, statSync, watch } from "node:fs";
import { open } from "node:fs/promises";
import type { BrokerAnswer } from "./broker.ts";
import type { Supervisor } from "./core/model.ts";
import { createEventFeed, type SendBatch } from "./event-feed.ts";
import type { LogFile } from "./log-file.ts";
import { createLogUpload } from "./log-upload.ts";
import { isAlive } from "./process-identity.ts";
import type { RunFiles } from "./supervisor/files.ts";

/** How often is looked where changes of a folder are not told, and whether a supervisor is alive, ms. */
const LOOK_MS = 500;

/** What was seen of a run's end: whether its supervisor wrote it, and up to which number the broker has its events. */
export type SeenEnd = { seen: boolean; reportedNumber: number };

/**
 * Follows the files that a supervisor writes: the log and the events go to the broker, and the end goes to `onEnd`, once. It is the same for a
 * run that this process began and for one that an earlier process did.
 */
export function followRun({
  files,
  supervisor,
  sendLog,
  sendEvents,
  onEnd,
}: {
  files: RunFiles;
  supervisor: Supervisor;
  sendLog: (offset: number, bytes: Uint8Array) => Promise<BrokerAnswer<{ bytes: number }>>;
  sendEvents: SendBatch;
  onEnd: (end: SeenEnd) => void;
}): { look(): void; close(): void } {
  const upload = createLogUpload(logReader(files.log), sendLog);
  const feed = createEventFeed(files.events, sendEvents);
  let watcher: FSWatcher | null = null;
  let isOver = false;

  const close = (): void => {
    isOver = true;
    clearInterval(timer);
    watcher?.close();
  };
  const look = (): void => {
    if (isOver) return;
    // In this order: a supervisor that is gone has written its end before.
    const alive = isAlive(supervisor);
    const seen = existsSync(files.exit);
    if (alive && !seen) {
      upload.grew();
      return feed.grew();
    }
    close();
    void Promise.all([feed.stop(), upload.stop()]).then(([reportedNumber]) => onEnd({ seen, reportedNumber }));
  };
  mkdirSync(files.folder, { recursive: true, mode: 0o700 });
  try {
    watcher = watch(files.folder, (_, name) => {
      if (name === "exit.json") look();
      else if (name === "log") upload.grew();
      else if (name === "events.jsonl") feed.grew();
    }).on("error", () => {});
  } catch {
    // No more watches on this machine: the timer sees it, half a second later.
  }
  const timer = setInterval(look, LOOK_MS);
  return { look, close };
}

/** A log that another process writes. What it reads is overwritten by its next read. */
function logReader(path: string): Pick<LogFile, "size" | "read"> {
  let buffer = new Uint8Array(0);
  const size = (): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  return {
    size,
    async read(offset, maxBytes) {
      const file = await open(path, "r");
      try {
        const bytes = Math.min(maxBytes, Math.max(0, size() - offset));
        // One for all reads of a log, because each of its own would be garbage for a while, and small for a log that is.
        if (buffer.length < bytes) buffer = new Uint8Array(Math.min(maxBytes, 2 * bytes));
        const { bytesRead } = await file.read(buffer, 0, bytes, offset);
        return buffer.subarray(0, bytesRead);
      } finally {
        await file.close();
      }
    },
  };
}
