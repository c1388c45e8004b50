import { expect, it } from "vitest";
import { describeCounts } from "./counts.ts";
import { describeFindings, runAndCheck } from "./run.ts";

/** Some seconds of every fault, with a new seed each time; what it finds is kept in the folder that it names. */
it("keeps every promise while broker and runners are killed and the network is cut", { timeout: 180_000 }, async () => {
  const plan = {
    seed: process.env["CHAOS_SEED"] ?? new Date().toISOString(),
    stormMs: 10_000,
    deployments: 3,
    runners: 2,
    brokerKillEveryMs: 3_000,
    runnerKillEveryMs: 3_000,
    partMs: 0,
  };
  const report = await runAndCheck(plan);
  process.stdout.write(`chaos ${plan.seed}: ${describeCounts(report.counts)}\n`);
  expect(report.findings, describeFindings(plan.seed, report)).toEqual([]);
  const { brokerKills, runnerKills, cuts, jobs, eventsWatched, signedLogs, deafConnections } = report.counts;
  for (const count of [brokerKills, runnerKills, cuts, jobs, eventsWatched, signedLogs, deafConnections])
    expect(count).toBeGreaterThan(0);
});
