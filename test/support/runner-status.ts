import { newCounters } from "../../runner/src/health/counters.ts";
import type { RunnerStatus } from "../../runner/src/health/status.ts";

/** How a runner is that is well and has nothing to do, but for what changes. */
export function runnerStatus(change: Partial<RunnerStatus> = {}): RunnerStatus {
  return {
    runner: "did:key:z6Mk",
    name: "king",
    version: "1",
    follow: { repositories: [], openCount: 0, untoldCount: 0 },
    broker: { url: "https://b", namespace: "me", contactAgoMs: 10 },
    drain: null,
    phase: "working",
    upMs: 1_000,
    loopAgoMs: 5,
    capacity: 2,
    runs: [],
    spool: { resultCount: 0, freeBytes: 9 },
    disk: { freeBytes: 100, floorBytes: 50 },
    memory: { availableBytes: 1, runs: [], waiting: [], rememberedTaskCount: 0 },
    counters: newCounters(),
    ...change,
  };
}

/** That the broker answered so long ago, ms; null when it never has. */
export function heardOf(contactAgoMs: number | null): Partial<RunnerStatus> {
  return { broker: { ...runnerStatus().broker, contactAgoMs } };
}
