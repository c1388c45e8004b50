import { LIMITS } from "@plumule/protocol";
import type { RunnerConfig } from "./config.ts";
import { freeBytesAt } from "./doctor/examine.ts";
import type { Spool } from "./spool.ts";

/** Results and logs that wait for a broker that is away: days of work fit, a disk does not fill. */
export const SPOOL_BYTES = 512 * 1024 * 1024;
/** Room that one result may need; without it no work is asked for. */
const SPOOL_FLOOR_BYTES = 2 * LIMITS.resultBytes;

/** What a machine has too little of to take work; null when there is enough of everything. */
export async function lackOf(
  { state, diskFloorBytes }: RunnerConfig,
  spool: Pick<Spool<unknown>, "freeBytes">,
): Promise<string | null> {
  if (spool.freeBytes() < SPOOL_FLOOR_BYTES)
    return "the spool is full of results and logs that the broker has not taken";
  if ((await freeBytesAt(state)) < diskFloorBytes)
    return `less than ${diskFloorBytes} bytes are free on the disk of ${state}`;
  return null;
}
