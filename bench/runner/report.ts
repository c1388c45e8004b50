import type { Table } from "../table.ts";

/** What is aimed for: a figure that is at least, or at most, so large. */
export type Aim = { least: number } | { most: number };

/** One thing that was measured, beside its floor of the same run where it has one. */
export type Row = {
  what: string;
  /** How many samples the median is of; 1 for what was watched once. */
  count: number;
  floor: string;
  measured: string;
  /** What carries over to another machine, with its unit behind it. */
  figure: number;
  unit: string;
  aim?: Aim;
};

/** The rows with their aims, and whether they were reached. */
export function runnerTable(rows: readonly Row[]): Table {
  return [
    ["measure", "count", "floor", "measured", "figure", "aim", "result"],
    ...rows.map(({ what, count, floor, measured, figure, unit, aim }) => [
      what,
      String(count),
      floor,
      measured,
      `${figureOf(figure)}${unit}`,
      ...(aim === undefined ? ["", ""] : judged(figure, unit, aim)),
    ]),
  ];
}

/** A duration for the table. */
export function milliseconds(ms: number): string {
  return `${figureOf(ms)} ms`;
}

/** A number with about three digits. */
export function figureOf(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function judged(figure: number, unit: string, aim: Aim): [string, string] {
  const [sign, limit, isReached] =
    "least" in aim ? (["≥", aim.least, figure >= aim.least] as const) : (["≤", aim.most, figure <= aim.most] as const);
  return [`${sign} ${limit}${unit}`, isReached ? "pass" : "miss"];
}
