import { UNCONFINED, type Confinement } from "../isolation.ts";
import { openRunGroup, spareBytes } from "../limits/group.ts";
import { describeLimits, explainEnd, limitsOf, workspaceFull } from "../limits/limits.ts";
import { watchWorkspace } from "../limits/workspace-size.ts";
import { reportKilled, type Survivors } from "../survivors.ts";
import type { TaskEnd } from "../tasks/task.ts";
import type { SupervisorOrder } from "./order.ts";
import type { StopSwitch } from "./stop-switch.ts";

/** A run within its limits. */
export type LimitedRun = {
  /** How each of its processes is started. */
  within: Confinement;
  /** Does the work, proves that the run's cgroups are empty, and says what its limits had to do with how it ended. */
  around(work: () => Promise<TaskEnd>): Promise<TaskEnd>;
};

/** Limits a run by what its runner allows and its job asks for. Refused when the kernel does not take a limit that it took when the runner started. */
export function limitRun(
  { assignment, machine, limits: own, logLimitBytes }: SupervisorOrder,
  {
    workspace,
    stop,
    log,
    survivors,
  }: { workspace: readonly string[]; stop: StopSwitch; log: (text: string) => void; survivors: Survivors },
): LimitedRun | { refused: string } {
  const asked = assignment.spec.limits;
  const limits = limitsOf(own, asked, { ...machine.limits, spareBytes: spareBytes() });
  const group = openRunGroup(assignment.run, limits, machine.limits);
  if ("unavailable" in group) return { refused: group.unavailable };
  const line = describeLimits(limits, { ...own, ...asked, logBytes: logLimitBytes }, machine.limits);
  if (line !== null) log(`[plumule] ${line}\n`);
  return {
    within: group.confinement ?? UNCONFINED,
    async around(work) {
      const watch = watchWorkspace(workspace, limits.workspaceBytes, (bytes) => {
        const reason = workspaceFull(bytes, limits.workspaceBytes ?? 0);
        // Without a grace, in which it would go on to fill the disk.
        stop.order({ reason, graceMs: 0, leaseLost: false });
      });
      try {
        const end = await work();
        await watch.close();
        const explained = explainEnd(end, limits, { ...group.evidence(), workspaceBytes: await watch.measure() });
        if (explained !== end && explained.reason !== null) log(`[plumule] ${explained.reason.detail}\n`);
        return explained;
      } finally {
        await watch.close();
        reportKilled(await group.empty(), survivors, log);
        group.remove();
      }
    },
  };
}
