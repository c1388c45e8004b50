import { killRun } from "../leftovers.ts";
import { probeIsolation } from "../isolation.ts";
import { execute, type Seat, trackingOf } from "./commands.ts";
import type { ExecEnd, ExecRequest, WorkspaceRefusal } from "./provider.ts";
import { localExecutor } from "./setup.ts";

/** What runs the commands of workspaces, whose files are this machine's in any case. */
export interface CommandHost {
  /** What a setup script runs on: what it leaves serves the same executor alone. */
  executor: string;
  execute(seat: Seat, request: ExecRequest): Promise<ExecEnd | WorkspaceRefusal>;
  /** Kills everything of a workspace, and looks again: how much of it is left, which is none, or more than can be killed. */
  endAll(id: string): Promise<number>;
}

/** Runs commands as processes of this machine, at its strongest level of isolation. */
export async function openLocalHost(): Promise<CommandHost> {
  const { level } = probeIsolation();
  return {
    executor: `local ${await localExecutor()}`,
    execute: (seat, request) => execute(seat, request, level),
    endAll: (id) => killRun(trackingOf(id), null),
  };
}
