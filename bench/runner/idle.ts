import { setTimeout as pause } from "node:timers/promises";
import type { Fleet } from "./fleet.ts";
import { readCpuMs, runnerProcesses } from "./processes.ts";
import { milliseconds, type Row } from "./report.ts";

const MINUTE_MS = 60_000;
/** After a start or a run a runner has things to do for a while: it fills its supply and collects garbage. */
const REST_MS = 5_000;

/** Watches a runner that has nothing to do for a minute: its processor time and that of the supervisor that waits, in percent of one core. */
export async function measureIdle({ runnerPid }: Fleet): Promise<Row> {
  await pause(REST_MS);
  const pids = runnerProcesses(runnerPid);
  const [from, fromMs] = [performance.now(), readCpuMs(pids)];
  await pause(MINUTE_MS);
  const [tookMs, usedMs] = [performance.now() - from, readCpuMs(pids) - fromMs];
  return {
    what: "processor time of an idle runner over a minute",
    count: 1,
    floor: milliseconds(tookMs),
    measured: milliseconds(usedMs),
    figure: (usedMs / tookMs) * 100,
    unit: " %",
    aim: { most: 0.2 },
  };
}
