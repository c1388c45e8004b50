// In place of `runner/src/process-identity.ts`: the processes of a simulated machine.
export * from "../../../runner/src/process-identity.ts";
import type { ProcessIdentity } from "../../../runner/src/process-identity.ts";
import { currentComputer } from "./computer.ts";

export function monotonicMs(): number {
  return Math.floor(currentComputer().world.clock.elapsedMs);
}

export function bootId(): string {
  return `boot-${currentComputer().bootCount}`;
}

export function identityOf(pid: number): ProcessIdentity | null {
  return currentComputer().has(pid) ? { pid, startedAt: String(pid), boot: bootId() } : null;
}

export function isAlive({ pid, boot }: ProcessIdentity): boolean {
  return boot === bootId() && currentComputer().has(pid);
}
