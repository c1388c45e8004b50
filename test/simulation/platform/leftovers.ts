// In place of `runner/src/leftovers.ts`: a simulated job has no process but its supervisor.
export * from "../../../runner/src/leftovers.ts";
import type { Supervisor } from "../../../runner/src/core/model.ts";
import { currentComputer } from "./computer.ts";

export async function killRun(_run: string, supervisor: Supervisor | null): Promise<number> {
  const computer = currentComputer();
  if (supervisor !== null && supervisor.boot === `boot-${computer.bootCount}`) computer.kill(supervisor.pid);
  return 0;
}
