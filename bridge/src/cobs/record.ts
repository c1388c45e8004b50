import type { CobRun, JobCobs } from "./rad-job.ts";

/** Runs of one job that this node adds at most: the first, and others only where `rad-job` could not finish that. */
const OWN_RUNS = 3;

/**
 * Brings a commit's job COB to what is to be said, from wherever an earlier attempt has left it. Several nodes that begin at the same time make several job COBs
 * of one commit, and `rad-job` writes to the first of them, by id: it may have come in since the run was started in another one, and to finish a
 * run that it does not have changes nothing. So what was written is read again, and if need be the run is added to that one too.
 */
export async function record(
  cobs: JobCobs,
  commit: string,
  { node, log, word }: { node: string; log: string; word: "started" | "succeeded" | "failed" },
): Promise<void> {
  const known = await cobs.runsOf(commit);
  const ownOf = (runs: readonly CobRun[] | null): CobRun[] =>
    runs?.filter((run) => run.node === node && run.log === log) ?? [];
  let own = ownOf(known);
  if (own.some(({ status }) => status === word) || (word === "started" && own.length > 0)) return;
  if (known === null) await cobs.request(commit);
  if (word !== "started") for (const { run } of own) await cobs.finish(commit, run, word);
  if (own.length > 0) own = ownOf(await cobs.runsOf(commit));
  if (own.some(({ status }) => status === word)) return;
  if (own.length >= OWN_RUNS) throw new Error("rad-job cannot finish what it has started");
  const run = await cobs.start(commit, log);
  if (word !== "started") await cobs.finish(commit, run, word);
  if (!ownOf(await cobs.runsOf(commit)).some(({ status }) => status === word))
    throw new Error(`rad-job has not written that it ${word}`);
}
