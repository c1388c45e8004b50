// Breaks the real thing for as long as it is told to: `npm run chaos -- --minutes 10 --seed mine`.
import { parseArgs } from "node:util";
import { takeSignals } from "../../cli/src/dev/signals.ts";
import { addCounts, type Counts, describeCounts } from "./counts.ts";
import { describeFindings, runAndCheck } from "./run.ts";

const DEFAULTS = {
  minutes: 10,
  cuts: 1_000,
  storm: 60,
  deployments: 6,
  runners: 4,
  "broker-kill": 6,
  "runner-kill": 4,
  part: 55,
} as const;
type Name = keyof typeof DEFAULTS;

const USAGE = `Rounds of faults, each from an empty broker to rest, until both the minutes and the cuts of connections are reached, or a promise is broken.

  --seed NAME           what jobs and faults are drawn from (a new one)
  --minutes N           at least so long (${DEFAULTS.minutes})
  --cuts N              at least so many connections cut (${DEFAULTS.cuts})
  --storm SECONDS       faults of one round (${DEFAULTS.storm})
  --deployments N       (${DEFAULTS.deployments})
  --runners N           (${DEFAULTS.runners})
  --broker-kill SECONDS between two kills of the broker, on average (${DEFAULTS["broker-kill"]})
  --runner-kill SECONDS between two kills of a runner, on average (${DEFAULTS["runner-kill"]})
  --part SECONDS        how long a runner at work is cut off, 0 for not at all; a lease is 45 s (${DEFAULTS.part})
`;

const say = (line: string): void => void process.stdout.write(`${line}\n`);

/** Null when the arguments are not understood. */
function readArguments(): { seed: string; numbers: Record<Name, number> } | null {
  const text = { type: "string" } as const;
  const names = Object.keys(DEFAULTS) as Name[];
  try {
    const options = Object.fromEntries(["seed", ...names].map((name) => [name, text]));
    const { values } = parseArgs({ options });
    const entries = names.map((name) => [name, Number(values[name] ?? DEFAULTS[name])] as const);
    if (entries.some(([, value]) => !(value >= 0))) return null;
    return {
      seed: values["seed"] ?? new Date().toISOString(),
      numbers: Object.fromEntries(entries) as Record<Name, number>,
    };
  } catch {
    return null;
  }
}

/** The exit code: 0 when every promise was kept in every round. */
async function main(): Promise<number> {
  const given = readArguments();
  if (given === null) {
    process.stderr.write(USAGE);
    return 2;
  }
  const { seed, numbers } = given;
  const { leave } = takeSignals();
  const endsAt = Date.now() + numbers.minutes * 60_000;
  let total: Counts | null = null;
  let isKept = true;
  for (let round = 1; isKept && (Date.now() < endsAt || (total?.cuts ?? 0) < numbers.cuts); round += 1) {
    const plan = {
      seed: `${seed}.${round}`,
      stormMs: numbers.storm * 1_000,
      deployments: numbers.deployments,
      runners: numbers.runners,
      brokerKillEveryMs: numbers["broker-kill"] * 1_000,
      runnerKillEveryMs: numbers["runner-kill"] * 1_000,
      partMs: numbers.part * 1_000,
    };
    const report = await runAndCheck(plan, say, leave);
    say(`${plan.seed}: ${describeCounts(report.counts)}`);
    say(describeFindings(plan.seed, report));
    total = total === null ? report.counts : addCounts(total, report.counts);
    isKept = report.findings.length === 0;
  }
  if (total !== null) say(`seed ${seed}, all rounds: ${describeCounts(total)}`);
  return isKept ? 0 : 1;
}

process.exitCode = await main();
