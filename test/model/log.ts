import { isRefusal, type ErrorCode, type RunView } from "@plumule/protocol";
import { liveLease } from "#durable-objects/deployment/core/lease.ts";
import { differingBytes, placeBytes, sealLog } from "#durable-objects/deployment/core/log.ts";
import { always } from "./always.ts";
import type { Lease, Result, World } from "./world.ts";

/** Bytes of a log that reach the broker. `isOther`: they are not what the run wrote. */
export type Chunk = { lease: Lease; offset: number; length: number; isOther?: boolean };

/** What became of bytes: how many the broker has after them, or why it refused them. */
export type Appended = { world: World; bytes: number | null; refused: ErrorCode | null };

/** Takes bytes in as a deployment does. */
export function append(world: World, { lease, offset, length, isOther = false }: Chunk): Appended {
  const refused = (code: ErrorCode): Appended => ({ world, bytes: null, refused: code });
  const live = liveLease(world.state.jobs, lease, 0);
  if (isRefusal(live)) return refused(live.refused);
  const stored = bytesOf(world, lease.epoch);
  const placed = placeBytes(stored, offset, length);
  if (isRefusal(placed)) return refused(placed.refused);
  if (isOther && placed.repeatedBytes > 0) return refused(differingBytes(offset).refused);
  if (isOther || placed.newBytes === 0) return { world, bytes: stored, refused: null };
  const bytes = stored + placed.newBytes;
  always(bytes > stored && bytes === offset + length, "P9 a log only grows", `${stored} becomes ${bytes}`);
  const logs = [...world.logs.filter(({ epoch }) => epoch !== lease.epoch), { epoch: lease.epoch, bytes }];
  return { world: { ...world, logs }, bytes, refused: null };
}

/** The log of a run as it is sealed with its result. */
export function sealedLog(world: World, { lease, logBytes }: Result): RunView["log"] {
  const shaOf = (bytes: number): string => `${lease.run} ${bytes}`;
  const stored = bytesOf(world, lease.epoch);
  const signed = { bytes: logBytes, sha256: shaOf(logBytes), truncated: false };
  const log = sealLog({ bytes: stored, sha256: shaOf(stored), sound: true }, signed);
  always(
    log.state === (stored === logBytes ? "complete" : "truncated"),
    "P9 a log ends as signed, or says so",
    log.state,
  );
  return log;
}

function bytesOf({ logs }: World, run: number): number {
  return logs.find(({ epoch }) => epoch === run)?.bytes ?? 0;
}
