import { LIMITS } from "@plumule/protocol";
import { type RunnerConfig, type RunnerFolders, runnerFolders } from "./config.ts";
import { freeBytesAt } from "./doctor/examine.ts";
import type { Spool } from "./spool.ts";
import { collectWorkspaces } from "./workspace.ts";

/** Results and logs that wait for a broker that is away: days of work fit, a disk does not fill. */
export const SPOOL_BYTES = 512 * 1024 * 1024;
/** Room that one result may need; without it no work is asked for. */
const SPOOL_FLOOR_BYTES = 2 * LIMITS.resultBytes;

/** What a machine has too little of to take work; null when there is enough of everything. */
export async function lackOf(config: RunnerConfig, spool: Pick<Spool<unknown>, "freeBytes">): Promise<string | null> {
  const { state, diskFloorBytes } = config;
  if (spool.freeBytes() < SPOOL_FLOOR_BYTES)
    return "the spool is full of results and logs that the broker has not taken";
  if ((await freeBytesAt(state)) < diskFloorBytes) await keepWithin(config, runnerFolders(config));
  if ((await freeBytesAt(state)) < diskFloorBytes)
    return `less than ${diskFloorBytes} bytes are free on the disk of ${state}`;
  return null;
}

/** Lets go of mirrors and warm checkouts, the longest unused first, until they are within their quota and twice the floor is free: work can go on then. */
export async function keepWithin(
  { warmBytes, diskFloorBytes }: Pick<RunnerConfig, "warmBytes" | "diskFloorBytes">,
  folders: Pick<RunnerFolders, "mirrors" | "warm">,
): Promise<void> {
  const bounds = { quotaBytes: warmBytes, floorBytes: 2 * diskFloorBytes };
  // What cannot be removed now is tried again; no run depends on it.
  await collectWorkspaces({ ...folders, ...bounds }).catch(() => {});
}
