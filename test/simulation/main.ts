// The simulation by hand and for a night: `npm run simulate -- --seeds 1000000`, or one world with `-- --seed 17 --trace`.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { simulateMany } from "./fleet.ts";
import { describeFailure, Tally } from "./report.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "2000" },
    from: { type: "string", default: "1" },
    seed: { type: "string" },
    trace: { type: "boolean", default: false },
  },
});

/** How often a long run says how far it is, in seeds. */
const SAY_EVERY = 10_000;

/** A night in which everything fails is over after this many. */
const MAX_FAILURES = 20;

if (values.trace) {
  const args = ["--from", values.seed ?? values.from, "--trace"];
  const worker = join(import.meta.dirname, "worker.ts");
  spawnSync(process.execPath, ["--disable-warning=ExperimentalWarning", worker, ...args], { stdio: "inherit" });
} else {
  const tally = new Tally();
  const [from, count] =
    values.seed === undefined ? [Number(values.from), Number(values.seeds)] : [Number(values.seed), 1];
  let failureCount = 0;
  await simulateMany(from, count, {}, (outcome) => {
    tally.add(outcome);
    if (outcome.violation !== null) {
      process.exitCode = 1;
      failureCount += 1;
      process.stdout.write(`${describeFailure(outcome)}\n`);
    }
    if (tally.seedCount % SAY_EVERY === 0) process.stdout.write(`${tally.seedCount} seeds so far\n`);
    return failureCount < MAX_FAILURES;
  });
  process.stdout.write(`${tally.describe()}\n`);
}
