import type { Evidence, Finding, History, LogWatch, StoredJob, StoredRun } from "./history.ts";

/** What a runner itself adds to a log begins with this. */
const RUNNER_WORD = "[plumule] ";

/** What jobs printed is what is stored, what was signed and what watchers were sent, byte for byte. */
export function checkLogs({ jobs, evidence, logWatches }: History): Finding[] {
  const broken = (detail: string): Finding => ({ promise: "P9 logs", detail });
  const said = Map.groupBy(evidence, ({ run }) => run);
  const runs = new Map(jobs.flatMap((job) => job.runs.map((run) => [run.id, run] as const)));
  return [
    ...jobs.flatMap((job) => job.runs.flatMap((run) => wrongLog(job, run, said.get(run.id) ?? []).map(broken))),
    ...logWatches.flatMap((watch) => wrongWatch(watch, runs.get(watch.run)).map(broken)),
  ];
}

function wrongLog({ printed }: StoredJob, run: StoredRun, said: readonly Evidence[]): string[] {
  const { id, text, log, signed } = run;
  if (text.length !== log.bytes) return [`run ${id} has ${text.length} bytes of log, and says ${log.bytes}`];
  const words = text.indexOf(RUNNER_WORD);
  const own = words === -1 ? text : text.slice(0, words);
  if (!printed.startsWith(own))
    return [`run ${id} has in its log what its job never printed, from ${differs(own, printed)} on`];
  // Nobody signed the log of a run that was lost; it is a beginning of what was printed, and that is all there is to say.
  if (signed.length === 0) return run.state === "succeeded" ? [`run ${id} succeeded, and nobody signed it`] : [];
  if (log.state !== "complete") return [`the log of run ${id} is ${log.state}, though it was signed`];
  const other = signed.find((one) => one.bytes !== text.length || one.sha256 !== run.textSha256);
  if (other !== undefined) return [`the log of run ${id} is not the one that was signed (${other.bytes} bytes)`];
  const came = said.some(({ what }) => what === "end");
  if (came && run.reason !== "runner-stopped" && own !== printed)
    return [`run ${id} printed ${printed.length} bytes to its end, and ${own.length} are stored`];
  return wasWatched(run) ? missingLines(run, own, said) : [];
}

/** A run whose runner saw it to its end, so that nothing that was printed may be missing. */
function wasWatched({ state, reason }: StoredRun): boolean {
  return state !== "lost" && reason !== "runner-stopped" && reason !== "runner-lost";
}

function missingLines({ id }: StoredRun, own: string, said: readonly Evidence[]): string[] {
  const printed = Math.max(0, ...said.filter(({ what }) => what === "line").map(({ value }) => value));
  const stored = own.split("\n").length - 1;
  return stored >= printed ? [] : [`run ${id} printed at least ${printed} lines, and ${stored} are stored`];
}

/** Pieces that follow each other (a slow reader is told what it was not sent) and hold what is stored at their place. */
function wrongWatch({ name, run, pieces, skippedBytes, endBytes }: LogWatch, stored: StoredRun | undefined): string[] {
  if (stored === undefined) return [`${name} watched the log of run ${run}, which is not there`];
  let at = 0;
  for (const { offset, text } of pieces) {
    if (offset < at) return [`${name} got bytes of run ${run} from ${offset} again, having been at ${at}`];
    if (stored.text.slice(offset, offset + text.length) !== text)
      return [`${name} got other bytes of run ${run} at ${offset} than are stored`];
    at = offset + text.length;
  }
  if (endBytes !== null && endBytes !== stored.text.length)
    return [`${name} was told that the log of run ${run} ends at ${endBytes}, and it has ${stored.text.length} bytes`];
  const sentBytes = pieces.reduce((sum, { text }) => sum + text.length, 0);
  if (endBytes !== null && sentBytes + skippedBytes !== endBytes)
    return [`${name} was sent ${sentBytes} and told of ${skippedBytes} of the ${endBytes} bytes of run ${run}`];
  return [];
}

function differs(one: string, other: string): number {
  for (let index = 0; ; index += 1) if (one[index] !== other[index]) return index;
}
