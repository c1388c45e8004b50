import type { Admission } from "../admission/admission.ts";
import type { RunnerConfig } from "../config.ts";
import type { LiveRun } from "../core/model.ts";
import { freeBytesAt } from "../doctor/examine.ts";
import type { Journal } from "../journal.ts";
import type { Machine } from "../machine.ts";
import { journaledRuns, type JournalRecord, type SpoolRecord } from "../records.ts";
import type { Spool } from "../spool.ts";
import type { Desk } from "../standalone/desk.ts";
import type { Counters } from "./counters.ts";
import type { RunnerStatus } from "./status.ts";

/** Where the state of a runner is found. */
export type Observed = {
  config: RunnerConfig;
  machine: Machine;
  journal: Journal<JournalRecord>;
  spool: Spool<SpoolRecord>;
  counters: Counters;
  admission: Admission;
  desk: Desk | null;
};

/** The state of the loop: `startedAt` and when it last turned are times of the monotonic clock, ms. */
export type LoopState = {
  phase: RunnerStatus["phase"];
  drain: RunnerStatus["drain"];
  startedAt: number;
  turnedAt: number;
  runs: readonly LiveRun[];
};

/** Puts together how a runner is at this moment. */
export async function observe(
  { config, machine, journal, spool, counters, admission, desk }: Observed,
  { phase, drain, startedAt, turnedAt, runs }: LoopState,
): Promise<RunnerStatus> {
  const { url = null, namespace, name, capacity, state, diskFloorBytes } = config;
  const { calls, results, logBytes, contactAt } = counters;
  const now = performance.now();
  const own = desk?.list() ?? [];
  const assignments = new Map(journaledRuns(journal).map(({ assignment }) => [assignment.run, assignment]));
  return {
    runner: machine.runner,
    name,
    version: machine.version,
    broker: { url, namespace, contactAgoMs: contactAt === null ? null : now - contactAt },
    follow: {
      repositories: config.follow,
      openCount: own.filter((job) => job.state !== "ended").length,
      untoldCount: own.filter((job) => job.state === "ended" && !job.told).length,
    },
    phase,
    drain,
    upMs: now - startedAt,
    loopAgoMs: now - turnedAt,
    capacity,
    runs: runs.map(({ run, stage, lease }) => {
      const { job = "", deployment = "" } = assignments.get(run) ?? {};
      return { run, job, deployment, stage, lease };
    }),
    spool: { resultCount: spool.pending().length, freeBytes: spool.freeBytes() },
    disk: { freeBytes: await freeBytesAt(state), floorBytes: diskFloorBytes },
    memory: admission.status(),
    counters: { calls, results, logBytes },
  };
}
