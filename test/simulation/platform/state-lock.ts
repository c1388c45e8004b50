// In place of `runner/src/state-lock.ts`: a machine starts no second runner while one is there.
export * from "../../../runner/src/state-lock.ts";
import type { StateLock } from "../../../runner/src/state-lock.ts";

export async function lockState(): Promise<StateLock> {
  return { release: async () => undefined };
}
