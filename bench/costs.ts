import { LIMITS } from "@plumule/protocol";
import type { Counts } from "./counts.ts";
import type { Tally } from "./workers/tally.ts";

/** What something uses of the platform. `gbSeconds`: wall-clock time of active objects at 128 MB each. */
export type Usage = {
  httpRequests: number;
  objectRequests: number;
  rowsWritten: number;
  rowsRead: number;
  gbSeconds: number;
};

/**
 * Prices of the Workers Paid plan in US dollars: per how many units, and how many are included each month.
 * From developers.cloudflare.com/workers/platform/pricing and developers.cloudflare.com/durable-objects/platform/pricing, November 2026.
 */
export const PRICES: Readonly<Record<keyof Usage, { name: string; dollars: number; per: number; included: number }>> = {
  httpRequests: { name: "Worker requests", dollars: 0.3, per: 1e6, included: 10e6 },
  objectRequests: { name: "object requests", dollars: 0.15, per: 1e6, included: 1e6 },
  rowsWritten: { name: "rows written", dollars: 1, per: 1e6, included: 50e6 },
  rowsRead: { name: "rows read", dollars: 0.001, per: 1e6, included: 25e9 },
  gbSeconds: { name: "duration, GB-s", dollars: 12.5, per: 1e6, included: 400_000 },
};

/** Memory that an active object is billed for, GB. */
const OBJECT_GB = 0.128;
const MONTH_SECONDS = 30 * 24 * 3600;
const POLL_SECONDS = LIMITS.pollHoldMs / 1000;
/** A runner renews its session a minute before it ends. */
const SESSION_SECONDS = LIMITS.sessionMs / 1000 - 60;

/**
 * Adds up steps. The time in which a poll is parked is left out: it belongs to the pool, which is held whether a job comes or not. Times of
 * steps that overlap in one object count twice here and once on the bill.
 */
export function usageOf(tallies: readonly Tally[]): Usage {
  const edge = tallies.filter(({ object }) => object === "edge");
  const objects = tallies.filter(({ object }) => object !== "edge");
  const activeMs = sum(objects.filter(({ step }) => step !== "poll").map((tally) => tally.activeMs));
  return {
    httpRequests: sum(edge.map(({ requestCount }) => requestCount)),
    objectRequests: sum(objects.map(({ requestCount }) => requestCount)),
    rowsWritten: sum(objects.map(writtenRows)),
    rowsRead: sum(objects.map(({ rowsRead }) => rowsRead)),
    gbSeconds: (activeMs / 1000) * OBJECT_GB,
  };
}

/** Rows that a step wrote, over all tables. */
export function writtenRows({ rowsWritten }: Tally): number {
  return sum(Object.values(rowsWritten));
}

/** A pool in which so many runners wait day and night for a month. Its object is active once, however many wait in it. */
export function usageOfHeldPool({ session, emptyPoll }: Counts, runnerCount: number): Usage {
  const polls = scale({ ...usageOf(emptyPoll), gbSeconds: 0 }, (runnerCount * MONTH_SECONDS) / POLL_SECONDS);
  const sessions = scale({ ...usageOf(session), gbSeconds: 0 }, (runnerCount * MONTH_SECONDS) / SESSION_SECONDS);
  return { ...add(polls, sessions), gbSeconds: MONTH_SECONDS * OBJECT_GB };
}

/** Multiplies a usage. */
export function scale(usage: Usage, factor: number): Usage {
  return map((key) => usage[key] * factor);
}

/** A bill in dollars: each part at its list price, their sum, and the sum beyond what the plan includes each month. */
export function billOf(usage: Usage): { parts: Usage; listed: number; beyondIncluded: number } {
  const dollars = (key: keyof Usage, count: number): number => (count * PRICES[key].dollars) / PRICES[key].per;
  const parts = map((key) => dollars(key, usage[key]));
  const beyond = map((key) => dollars(key, Math.max(0, usage[key] - PRICES[key].included)));
  return { parts, listed: sum(Object.values(parts)), beyondIncluded: sum(Object.values(beyond)) };
}

function add(a: Usage, b: Usage): Usage {
  return map((key) => a[key] + b[key]);
}

function map(value: (key: keyof Usage) => number): Usage {
  return {
    httpRequests: value("httpRequests"),
    objectRequests: value("objectRequests"),
    rowsWritten: value("rowsWritten"),
    rowsRead: value("rowsRead"),
    gbSeconds: value("gbSeconds"),
  };
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, one) => total + one, 0);
}
