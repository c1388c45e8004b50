import { billOf, PRICES, scale, type Usage, usageOf, usageOfHeldPool, writtenRows } from "./costs.ts";
import type { Counts } from "./counts.ts";
import type { Table } from "./table.ts";
import type { Tally } from "./workers/tally.ts";

const MAX_REQUESTS = 8;
const MAX_ROWS = 20;

/** Requests and rows of one quiet job, by object and step. */
export function stepTable({ job }: Counts): Table {
  const rows = job.toSorted((a, b) => a.object.localeCompare(b.object) || b.requestCount - a.requestCount);
  return [
    ["object", "step", "requests", "rows written", "which", "rows read"],
    ...rows.map((tally) => [
      tally.object,
      tally.step,
      number(tally.requestCount),
      number(writtenRows(tally)),
      tablesOf(tally),
      number(tally.rowsRead),
    ]),
  ];
}

/** The sums of one quiet job beside what is aimed for. */
export function totalsTable({ job }: Counts): Table {
  const { httpRequests, objectRequests, rowsWritten } = usageOf(job);
  const lookUps = job.find(({ object, step }) => object === "Namespace" && step === "authenticate")?.requestCount ?? 0;
  const row = (what: string, count: number, limit: number): string[] => [
    what,
    number(count),
    `≤ ${limit}`,
    count <= limit ? "pass" : "miss",
  ];
  return [
    ["one quiet no-op job", "count", "aim", "result"],
    row("HTTP requests", httpRequests, MAX_REQUESTS),
    row("requests to objects: calls and alarms", objectRequests, MAX_REQUESTS),
    row("the same without look-ups of credentials", objectRequests - lookUps, MAX_REQUESTS),
    row("rows written in all objects", rowsWritten, MAX_ROWS),
  ];
}

/** What a month of something costs, in dollars, part by part. */
export function billTable(counts: Counts): Table {
  const { job, longJob, longJobSeconds } = counts;
  const parts = Object.keys(PRICES) as (keyof Usage)[];
  const row = (what: string, usage: Usage): string[] => {
    const bill = billOf(usage);
    const cells = parts.map((part) => bill.parts[part].toFixed(2));
    return [what, ...cells, bill.listed.toFixed(2), bill.beyondIncluded.toFixed(2)];
  };
  return [
    ["a month of", ...parts.map((part) => PRICES[part].name), "at list price, $", "beyond what is included, $"],
    row("a million no-op jobs", scale(usageOf(job), 1e6)),
    row(`a million jobs of ${longJobSeconds} s`, scale(usageOf(longJob), 1e6)),
    row("a pool held day and night by one runner", usageOfHeldPool(counts, 1)),
    row("the same by a hundred runners", usageOfHeldPool(counts, 100)),
  ];
}

function tablesOf({ rowsWritten }: Tally): string {
  return Object.entries(rowsWritten)
    .map(([table, rows]) => (rows === 1 ? table : `${table} ${number(rows)}`))
    .join(", ");
}

function number(value: number): string {
  return String(Math.round(value * 100) / 100);
}
