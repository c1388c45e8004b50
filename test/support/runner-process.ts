/**
 * A runner as a process of its own, which a test can kill. The options come as JSON in the first argument; lines go to standard output. With
 * `sent` or `answered` as second argument it kills itself when it sends its first heartbeat, or has the answer to it.
 */
import { startRunner, type RunnerOptions } from "@plumule/runner";

const dies = process.argv[3];
const die = async (): Promise<never> => {
  process.kill(process.pid, "SIGKILL");
  return new Promise(() => {});
};

const runner = await startRunner(JSON.parse(process.argv[2] ?? "") as RunnerOptions, {
  async fetch(...request) {
    const isBeat = String(request[0]).endsWith("/heartbeat");
    if (isBeat && dies === "sent") await die();
    const answer = await fetch(...request);
    return isBeat && dies === "answered" ? die() : answer;
  },
  say: (line) => process.stdout.write(`${line}\n`),
});
if ("refused" in runner) {
  process.stderr.write(`${runner.refused}\n`);
  process.exit(64);
}
process.on("SIGTERM", () => runner.stop());
process.on("SIGHUP", () => runner.leaveRuns());
process.exit(await runner.done);
