// In place of `runner/src/supervisors.ts`: the real supervisor, as another process of the simulated machine.
export * from "../../../runner/src/supervisors.ts";
import { superviseRun } from "../../../runner/src/supervisor/supervise.ts";
import type { Supervisors, WaitingSupervisor } from "../../../runner/src/supervisors.ts";
import { currentContext, runAs } from "./clock.ts";
import { currentComputer } from "./computer.ts";

/** Time that a process takes to start, ms. */
const START_MS = 40;
const LOOK_MS = 500;

export function openSupervisors(): Supervisors {
  return { take: start, refill: () => undefined, close: async () => undefined };
}

async function start(): Promise<WaitingSupervisor> {
  const computer = currentComputer();
  const runner = currentContext();
  const { clock, timing } = computer.world;
  await new Promise<void>((resolve) => clock.timer(timing.next() * START_MS, resolve));
  const { pid, context } = computer.start(`supervisor of ${runner?.owner.name}`);
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  // A parent hears of the end of its child, unless it is gone itself.
  const look = (): void => {
    if (computer.has(pid)) clock.timer(LOOK_MS, look);
    else resolve();
  };
  look();
  const exit = (): void => {
    computer.kill(pid);
    if (runner?.owner.alive === true) runAs(runner, resolve);
  };
  return {
    supervisor: { version: 1, pid, startedAt: String(pid), boot: `boot-${computer.bootCount}` },
    begin: (order) => {
      const ends = { left: null, terminated: new AbortController().signal };
      void runAs(context, () => superviseRun(order, ends)).then(exit, exit);
    },
    dismiss: exit,
    ended,
  };
}
