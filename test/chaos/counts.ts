import type { History } from "./history.ts";
import type { Proxy } from "./proxy.ts";

/** How often what happened in a round; bytes where the name says so. */
export type Counts = {
  brokerKills: number;
  runnerKills: number;
  connections: number;
  cuts: number;
  stalls: number;
  strangePages: number;
  submits: number;
  tries: number;
  cancels: number;
  jobs: number;
  runs: number;
  runsLost: number;
  events: number;
  eventsWatched: number;
  logBytes: number;
  logBytesWatched: number;
  signedLogs: number;
  evidenceLines: number;
  deafConnections: number;
  brokerBytes: number;
};

type Seen = Omit<Counts, "brokerKills" | "runnerKills" | "deafConnections" | keyof ReturnType<typeof countFaults>>;

const sum = <T>(items: readonly T[], of: (item: T) => number): number =>
  items.reduce((total, item) => total + of(item), 0);

/** Counts what is in a history. */
export function countSeen({ submits, cancels, jobs, streams, watches, logWatches, evidence, memory }: History): Seen {
  const runs = jobs.flatMap((job) => job.runs);
  return {
    submits: submits.length,
    tries: sum(submits, ({ tryCount }) => tryCount),
    cancels: cancels.length,
    jobs: jobs.length,
    runs: runs.length,
    runsLost: runs.filter(({ state }) => state === "lost").length,
    events: sum(streams, ({ events }) => events.length),
    eventsWatched: sum(watches, ({ notes }) => notes.filter(({ kind }) => kind === "event").length),
    logBytes: sum(runs, ({ text }) => text.length),
    logBytesWatched: sum(logWatches, ({ pieces }) => sum(pieces, ({ text }) => text.length)),
    signedLogs: sum(runs, ({ signed }) => signed.length),
    evidenceLines: evidence.length,
    brokerBytes: memory.maxBytes,
  };
}

/** Counts what was done to the network. */
export function countFaults(proxies: readonly Proxy[]): {
  connections: number;
  cuts: number;
  stalls: number;
  strangePages: number;
} {
  return {
    connections: sum(proxies, ({ counts }) => counts.connections),
    cuts: sum(proxies, ({ counts }) => counts.cuts),
    stalls: sum(proxies, ({ counts }) => counts.stalls),
    strangePages: sum(proxies, ({ counts }) => counts.pages),
  };
}

/** Adds the counts of rounds; of what is a greatest value it takes the greatest. */
export function addCounts(one: Counts, other: Counts): Counts {
  const names = Object.keys(one) as (keyof Counts)[];
  const added = names.map((name) => [
    name,
    name === "brokerBytes" ? Math.max(one[name], other[name]) : one[name] + other[name],
  ]);
  return Object.fromEntries(added) as Counts;
}

/** Counts on one line, for people: `brokerKills 3, cuts 120, …`. */
export function describeCounts(counts: Counts): string {
  return Object.entries(counts)
    .map(([name, value]) => `${name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)} ${value}`)
    .join(", ");
}
