// Breaks the real thing for as long as it is told to: `npm run chaos -- --minutes 10 --seed mine`. Rounds of a minute of faults, each from an
// empty broker to rest, until both the time and the number of cuts are reached; the first round that finds something ends it.
import { parseArgs } from "node:util";
import { takeSignals } from "../../cli/src/dev/signals.ts";
import { addCounts, type Counts, describeCounts } from "./counts.ts";
import { describeFindings, runAndCheck } from "./run.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    cuts: { type: "string", default: "1000" },
    seed: { type: "string", default: new Date().toISOString() },
    runners: { type: "string", default: "4" },
    deployments: { type: "string", default: "6" },
    storm: { type: "string", default: "60" },
    "broker-kill": { type: "string", default: "6" },
    "runner-kill": { type: "string", default: "4" },
    part: { type: "string", default: "55" },
  },
});
const seconds = (name: "storm" | "broker-kill" | "runner-kill" | "part"): number => Number(values[name]) * 1_000;
const say = (line: string): void => void process.stdout.write(`${line}\n`);

const { leave } = takeSignals();
const endsAt = Date.now() + Number(values.minutes) * 60_000;
let total: Counts | null = null;
for (let round = 1; Date.now() < endsAt || (total?.cuts ?? 0) < Number(values.cuts); round += 1) {
  const plan = {
    seed: `${values.seed}.${round}`,
    stormMs: seconds("storm"),
    deployments: Number(values.deployments),
    runners: Number(values.runners),
    brokerKillEveryMs: seconds("broker-kill"),
    runnerKillEveryMs: seconds("runner-kill"),
    partMs: seconds("part"),
  };
  const report = await runAndCheck(plan, say, leave);
  say(`${plan.seed}: ${describeCounts(report.counts)}`);
  say(describeFindings(plan.seed, report));
  total = total === null ? report.counts : addCounts(total, report.counts);
  if (report.findings.length > 0) {
    process.exitCode = 1;
    break;
  }
}
if (total !== null) say(`seed ${values.seed}: ${describeCounts(total)}`);
