import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { fillDocument } from "../documents.ts";
import { openStage } from "../stage.ts";
import { markdownTable, plainTable } from "../table.ts";
import { startFleet } from "./fleet.ts";
import { measureIdle } from "./idle.ts";
import { measureLogPath, measureMemory } from "./logs.ts";
import { type Row, runnerTable } from "./report.ts";
import { measureSandboxes } from "./sandboxes.ts";
import { measureWorkspaces } from "./workspaces.ts";

const USAGE = `usage: npm run bench:runner -- [--write-docs]

Measures what the runner costs beside the least that the machine can do, in one run of about three minutes: workspaces beside a
cold clone, sandboxes beside plain bash, the way of a log beside cat, and the runner's own memory and processor time.
Nothing fails by being slow: the exit code tells only whether the bench could run.

  --write-docs  puts the table into docs/performance.md`;

const { values } = parseArgs({
  options: { "write-docs": { type: "boolean", default: false }, help: { type: "boolean", default: false } },
});
if (values.help) console.log(USAGE);
else await bench(values["write-docs"]);

async function bench(writeDocs: boolean): Promise<void> {
  const { machine, folderOf } = openStage();

  const rows: Row[] = [];
  const measure = async (what: string, work: () => Promise<Row | Row[]>): Promise<void> => {
    console.log(what);
    rows.push(...[await work()].flat());
  };
  await measure("workspaces of a generated repository", () => measureWorkspaces(folderOf("workspaces")));
  await measure("sandboxes", measureSandboxes);
  console.log("a broker and a runner start");
  const fleet = await startFleet(folderOf("fleet"));
  try {
    const logs = folderOf("logs");
    await measure("a runner without work, for a minute", () => measureIdle(fleet));
    await measure("memory during long logs", () => measureMemory(fleet, logs));
    await measure("the way of a log to the broker", () => measureLogPath(fleet, logs));
  } finally {
    await fleet.stop();
  }
  const table = runnerTable(rows);
  console.log(`\nrunner\n\n${plainTable(table)}`);

  if (!writeDocs) return;
  const document = fileURLToPath(new URL("../../docs/performance.md", import.meta.url));
  await fillDocument(document, { "runner machine": machine, runner: markdownTable(table) });
}
