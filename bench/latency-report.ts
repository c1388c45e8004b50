import { MEASURES, type Measure } from "./latency.ts";
import { type Summary, summarise } from "./statistics.ts";
import type { Table } from "./table.ts";

/** Durations in ms by measure. */
export type Samples = Readonly<Record<Measure, readonly number[]>>;

type Target = { floor: "floorPoll" | "floorFrame"; medianFloors?: number; p99Floors?: number };

/** How far above its floor each measure may be. */
const TARGETS: Readonly<Record<Measure, Target | null>> = {
  floorPoll: null,
  floorFrame: null,
  fastPath: { floor: "floorPoll", medianFloors: 1.5, p99Floors: 3 },
  backlog: { floor: "floorPoll", medianFloors: 3 },
  queuedEvent: { floor: "floorFrame", medianFloors: 1.5 },
  runningEvent: { floor: "floorFrame", medianFloors: 1.5 },
  cancel: { floor: "floorPoll" },
};

/** What was measured, in ms and in floors of the same run, beside what is aimed for. */
export function latencyTable(samples: Samples): Table {
  const head = ["measure", "count", "median ms", "p99 ms", "median floors", "p99 floors", "aim", "result"];
  const names = Object.keys(MEASURES) as Measure[];
  return [head, ...names.map((name) => rowOf(name, samples))];
}

function rowOf(name: Measure, samples: Samples): string[] {
  const summary = summarise(samples[name]);
  const target = TARGETS[name];
  const cells = [MEASURES[name], String(summary.count), summary.medianMs.toFixed(2), summary.p99Ms.toFixed(2)];
  if (target === null) return [...cells, "1", "1", "", ""];
  const floors = inFloors(summary, summarise(samples[target.floor]));
  return [...cells, floors.median.toFixed(2), floors.p99.toFixed(2), ...judged(floors, target)];
}

/** The 99th percentile is measured in floors at their 99th percentile. */
function inFloors(summary: Summary, floor: Summary): { median: number; p99: number } {
  return { median: summary.medianMs / floor.medianMs, p99: summary.p99Ms / floor.p99Ms };
}

function judged(floors: { median: number; p99: number }, { medianFloors, p99Floors }: Target): [string, string] {
  const aims: string[] = [];
  const missed: string[] = [];
  for (const [name, value, limit] of [
    ["median", floors.median, medianFloors],
    ["p99", floors.p99, p99Floors],
  ] as const) {
    if (limit === undefined) continue;
    aims.push(`${name} ≤ ${limit}`);
    if (value > limit) missed.push(name);
  }
  if (aims.length === 0) return ["", ""];
  return [aims.join(", "), missed.length === 0 ? "pass" : `miss (${missed.join(", ")})`];
}
