import { type DRAIN_ENDS, LIMITS } from "@plumule/protocol";
import type { MemoryStatus } from "../admission/admission.ts";
import { CALLS, type Counters } from "./counters.ts";

/** A runner as it is at this moment: what `/status.json` answers. Ages instead of times, because the wall clock may be set. */
export type RunnerStatus = {
  runner: string;
  name: string;
  version: string;
  /** `url` null: a runner that follows repositories and has no broker. */
  broker: { url: string | null; namespace: string; contactAgoMs: number | null };
  /** Repositories that it follows (`rad:z…`), its own jobs that wait or work, and those that the broker has still to be told of. */
  follow: { repositories: string[]; openCount: number; untoldCount: number };
  /** How an operator drained it, if somebody did. */
  drain: { note: string | null; end: (typeof DRAIN_ENDS)[number] } | null;
  phase: "working" | "draining" | "stopping" | "leaving";
  upMs: number;
  /** Since the loop that asks for work last turned. */
  loopAgoMs: number;
  capacity: number;
  runs: { run: string; job: string; deployment: string; stage: string; lease: string }[];
  spool: { resultCount: number; freeBytes: number };
  disk: { freeBytes: number; floorBytes: number };
  memory: MemoryStatus;
  counters: Pick<Counters, "calls" | "results" | "logBytes">;
};

/** A poll is held this long, so a runner that works hears from its broker within one interval and a moment; two are late, ms. */
export const CONTACT_LIMIT_MS = 2 * LIMITS.pollHoldMs;
/** The loop turns with each poll, whose request ends at the latest half a minute after its hold; twice that is a loop that hangs, ms. */
const LOOP_LIMIT_MS = 2 * (LIMITS.pollHoldMs + 30_000);

/** Why the process should be started again; nothing while it works, or waits for its last runs. */
export function faultsOfLife({ phase, loopAgoMs }: RunnerStatus): string[] {
  return phase === "working" && loopAgoMs > LOOP_LIMIT_MS ? [`the loop has not turned for ${seconds(loopAgoMs)}`] : [];
}

/** Why no work would come to it at this moment; nothing when it is ready. */
export function faultsOfReadiness(status: RunnerStatus): string[] {
  const { broker, disk, phase, drain } = status;
  const { contactAgoMs } = broker;
  return [
    ...faultsOfLife(status),
    ...(phase === "working" && drain === null ? [] : ["it takes no new work"]),
    ...(broker.url !== null && contactAgoMs === null ? ["the broker has not answered yet"] : []),
    ...(contactAgoMs !== null && contactAgoMs > CONTACT_LIMIT_MS
      ? [`the broker has not answered for ${seconds(contactAgoMs)}`]
      : []),
    ...(disk.freeBytes < disk.floorBytes
      ? [`${disk.freeBytes} bytes are free on the disk, less than the floor of ${disk.floorBytes}`]
      : []),
  ];
}

/** A metric: name, kind, what it means, and its values by labels. */
type Metric = { name: string; kind: "counter" | "gauge"; help: string; values: [labels: string, value: number][] };

/** The status in Prometheus' text format 0.0.4. The names are a contract: docs/runner.md lists them. */
export function metricsText(status: RunnerStatus): string {
  return metricsOf(status)
    .flatMap(({ name, kind, help, values }) => [
      `# HELP ${name} ${help}`,
      `# TYPE ${name} ${kind}`,
      ...values.map(([labels, value]) => `${name}${labels} ${value}`),
    ])
    .join("\n")
    .concat("\n");
}

function metricsOf(status: RunnerStatus): Metric[] {
  const { counters, runs, spool, disk, broker, capacity, upMs } = status;
  const gauge = (name: string, help: string, value: number): Metric => ({
    name: `plumule_runner_${name}`,
    kind: "gauge",
    help,
    values: [["", value]],
  });
  return [
    gauge("up_seconds", "Time since the start.", upMs / 1000),
    gauge("ready", "1 when work would come to it.", faultsOfReadiness(status).length === 0 ? 1 : 0),
    gauge("capacity", "Runs at a time.", capacity),
    gauge("runs", "Runs at work.", runs.length),
    gauge("broker_contact_seconds", "Time since the broker last answered; -1 before that.", ago(broker.contactAgoMs)),
    gauge("spool_results", "Results that the broker has not taken.", spool.resultCount),
    gauge("spool_free_bytes", "Room for results that the broker has not taken.", spool.freeBytes),
    gauge("disk_free_bytes", "Free space where the state lies.", disk.freeBytes),
    gauge("disk_floor_bytes", "Free space below which no work is asked for.", disk.floorBytes),
    {
      name: "plumule_runner_calls_total",
      kind: "counter",
      help: "Requests to the broker, by what was asked and how it ended.",
      values: CALLS.flatMap((call) =>
        Object.entries(counters.calls[call]).map(([end, count]): [string, number] => [
          `{call="${call}",end="${end}"}`,
          count,
        ]),
      ),
    },
    {
      name: "plumule_runner_results_total",
      kind: "counter",
      help: "Results that the broker took, by outcome.",
      values: Object.entries(counters.results).map(([outcome, count]) => [`{outcome="${outcome}"}`, count]),
    },
    {
      name: "plumule_runner_log_bytes_total",
      kind: "counter",
      help: "Bytes of logs that the broker took.",
      values: [["", counters.logBytes]],
    },
  ];
}

function ago(ms: number | null): number {
  return ms === null ? -1 : ms / 1000;
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`;
}
