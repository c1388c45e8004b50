import {
  appendFileSync,
  closeSync,
  constants,
  openSync,
  readFileSync,
  renameSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { bootId } from "../process-identity.ts";

/** Version of what a supervisor and its runner write for each other. A runner that does not know it does not follow the run. */
export const SUPERVISOR_VERSION = 1;

/** The files of a run, in a folder of its own. The supervisor writes the first three, its runner those in `control`. */
export type RunFiles = { folder: string; log: string; events: string; exit: string; control: string };

/** Where a run has its files, below the folder of all runs. */
export function runFiles(runs: string, run: string): RunFiles {
  const folder = join(runs, run);
  return {
    folder,
    log: join(folder, "log"),
    events: join(folder, "events.jsonl"),
    exit: join(folder, "exit.json"),
    control: join(folder, "control"),
  };
}

/** Until when work may go on, as the monotonic clock of one life of the machine tells time. */
export type LeaseTime = { untilMs: number; boot: string };

/**
 * Writes the lease over the earlier one, always with the same length, so that a full disk cannot end a run whose lease is held. A reader who
 * comes in between reads again.
 */
export function writeLease(control: string, untilMs: number): void {
  const file = openSync(join(control, "lease"), constants.O_WRONLY | constants.O_CREAT, 0o600);
  try {
    writeSync(file, `${String(Math.floor(untilMs)).padStart(20)} ${bootId().padEnd(40)}.\n`, 0);
  } finally {
    closeSync(file);
  }
}

/** The lease of a run; null when there is none, or it was being written. */
export function readLease(control: string): LeaseTime | null {
  const found = /^ *(\d+) (.{40})\.\n$/.exec(read(join(control, "lease")));
  return found === null ? null : { untilMs: Number(found[1]), boot: (found[2] ?? "").trim() };
}

/** An order to stop, as it lies in `control`; `number` tells it from the one before. */
export type WrittenOrder = {
  number: number;
  reason: { code: string; detail: string };
  graceMs: number | null;
  leaseLost: boolean;
};

/** Writes the newest order in place of the one before. */
export function writeOrder(control: string, order: Omit<WrittenOrder, "number">): void {
  replaceFile(join(control, "stop.json"), JSON.stringify({ ...order, number: (readOrder(control)?.number ?? 0) + 1 }));
}

/** The newest order to stop. */
export function readOrder(control: string): WrittenOrder | null {
  const text = read(join(control, "stop.json"));
  return text === "" ? null : (JSON.parse(text) as WrittenOrder);
}

/** Writes up to which number the broker has taken the events of a run. */
export function writeTaken(control: string, number: number): void {
  replaceFile(join(control, "taken"), String(number));
}

/** Up to which number the broker is known to have taken the events of a run. */
export function readTaken(control: string): number {
  return Number(read(join(control, "taken")));
}

/** Puts a whole file in the place of another, for readers on this machine. What a power cut leaves is either, neither or empty. */
export function replaceFile(path: string, content: string): void {
  const unfinished = `${path}.unfinished`;
  writeFileSync(unfinished, content, { mode: 0o600 });
  renameSync(unfinished, path);
}

/** Adds whole lines to a file. A line that a full disk cut off is ended before the next one, so that a reader loses at most that. */
export function createLineWriter(path: string): (line: string) => void {
  let isCut = false;
  return (line) => {
    const start = isCut ? "\n" : "";
    isCut = true;
    appendFileSync(path, `${start}${line}\n`, { mode: 0o600 });
    isCut = false;
  };
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
