import { appendFileSync } from "node:fs";
import { stockPipes } from "../pipe.ts";
import { trackProcessesAs } from "../process-tree.ts";
import { runFiles } from "./files.ts";
import type { SupervisorOrder } from "./order.ts";
import { superviseRun } from "./supervise.ts";

// The process that does the work of one run, in a session of its own. It is started before it is needed and waits for its order, one line of
// JSON on standard input; a runner that ends before that takes it along. It has no key, and speaks with nobody but through the run's folder.

process.title = "plumule supervisor";
const left = new AbortController();
process.stdin.once("close", () => left.abort());

stockPipes();
const line = await firstLine();
if (line !== null) {
  const order = JSON.parse(line) as SupervisorOrder;
  trackProcessesAs(order.assignment.run);
  if (order.outlives) process.stdin.unref?.();
  else process.stdin.resume();
  const terminated = new AbortController();
  process.once("SIGTERM", () => terminated.abort());
  await superviseRun(order, { left: order.outlives ? null : left.signal, terminated: terminated.signal }).catch(
    (error: unknown) => {
      // Whoever finds the run without an end seals its log as it is.
      appendFileSync(runFiles(order.runs, order.assignment.run).log, `[plumule] ${String(error)}\n`);
      process.exit(1);
    },
  );
}
process.exit(0);

/** The order, or null when the runner has gone without one. */
async function firstLine(): Promise<string | null> {
  let text = "";
  process.stdin.setEncoding("utf8");
  for await (const chunk of process.stdin.iterator({ destroyOnReturn: false })) {
    text += String(chunk);
    const end = text.indexOf("\n");
    if (end >= 0) return text.slice(0, end);
  }
  return null;
}
