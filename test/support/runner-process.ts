/** A runner as a process of its own, which a test can kill. The options come as JSON in the first argument; lines go to standard output. */
import { startRunner, type RunnerOptions } from "@plumule/runner";

const runner = await startRunner(JSON.parse(process.argv[2] ?? "") as RunnerOptions, {
  fetch,
  say: (line) => process.stdout.write(`${line}\n`),
});
if ("refused" in runner) {
  process.stderr.write(`${runner.refused}\n`);
  process.exit(64);
}
process.on("SIGTERM", () => runner.stop());
process.exit(await runner.done);
