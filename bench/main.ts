import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { billTable, stepTable, totalsTable } from "./cost-report.ts";
import { countJobs } from "./counts.ts";
import { fillDocument } from "./documents.ts";
import { latencyTable } from "./latency-report.ts";
import { measureLatency } from "./rounds.ts";
import { openStage } from "./stage.ts";
import { markdownTable, plainTable, type Table } from "./table.ts";

const USAGE = `usage: npm run bench -- [--quick] [--write-docs]

Measures the broker beside a floor, the least that one object of the same runtime can do, and counts what a job costs.
Nothing fails by being slow: the exit code tells only whether the bench could run.

  --quick       few samples, about a minute and a half instead of five
  --write-docs  puts the tables into docs/costs.md and docs/performance.md`;

const { values } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    "write-docs": { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
if (values.help) console.log(USAGE);
else await bench(values.quick, values["write-docs"]);

async function bench(quick: boolean, writeDocs: boolean): Promise<void> {
  const { machine, folderOf } = openStage();

  const samples = await measureLatency(quick ? 2 : 12, folderOf, (line) => console.log(line));
  const latency = latencyTable(samples);
  show("times", latency);

  console.log("\ncounting jobs that come one by one");
  const counts = await countJobs(
    quick ? { jobCount: 2, longJobSeconds: 15 } : { jobCount: 10, longJobSeconds: 60 },
    folderOf("counted"),
  );
  const [steps, totals, bills] = [stepTable(counts), totalsTable(counts), billTable(counts)];
  show("one quiet no-op job, step by step", steps);
  show("requests and rows", totals);
  show("dollars", bills);

  if (!writeDocs) return;
  const document = (name: string): string => fileURLToPath(new URL(`../docs/${name}.md`, import.meta.url));
  await fillDocument(document("performance"), { machine, times: markdownTable(latency) });
  await fillDocument(document("costs"), {
    steps: markdownTable(steps),
    totals: markdownTable(totals),
    bills: markdownTable(bills),
  });
}

function show(title: string, table: Table): void {
  console.log(`\n${title}\n\n${plainTable(table)}`);
}
