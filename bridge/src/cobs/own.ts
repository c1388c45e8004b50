import { waitFor } from "../waiting.ts";
import type { JobCobs } from "./rad-job.ts";
import { record } from "./record.ts";

/** What this node has to say of a job: `repository` is `z…`, `log` the URL by which its run is known again. */
export type OwnWord = {
  job: string;
  repository: string;
  commit: string;
  log: string;
  word: "started" | "succeeded" | "failed";
};

export type OwnCobsDeps = {
  /** The node in whose name it is written, `z6Mk…`. */
  node: string;
  openCobs: (repository: string) => JobCobs;
  /** What is not written yet, oldest first. */
  due: () => Promise<OwnWord[]>;
  /** It is written: it is not due any more when this resolves. */
  written: (word: OwnWord) => Promise<void>;
  /** Aborted when something else may be due. */
  change: () => AbortSignal;
  say: (line: string) => void;
  signal: AbortSignal;
};

const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;

/**
 * Writes into job COBs what becomes of jobs that this machine gives itself, one after the other and as often as it takes: what is written stands in the COB
 * itself, so that a crash writes nothing twice. Announces it until somebody has it. When the signal aborts, what is due is tried once more. Never rejects.
 */
export async function writeOwnCobs(deps: OwnCobsDeps): Promise<void> {
  const { change, due, say, signal } = deps;
  const unannounced = new Set<string>();
  const failed = new Map<string, string>();
  for (let pauseMs = FIRST_PAUSE_MS; ;) {
    const changed = change();
    const isLast = signal.aborted;
    let hasFailed = false;
    for (const word of await due()) {
      const { job, commit, repository } = word;
      try {
        await record(deps.openCobs(repository), commit, { node: deps.node, log: word.log, word: word.word });
        await deps.written(word);
        unannounced.add(repository);
        failed.delete(job);
        say(`job ${job} ${word.word} in the job COB of ${commit.slice(0, 7)}, rad:${repository}`);
      } catch (error) {
        hasFailed = true;
        const why = error instanceof Error ? error.message : String(error);
        if (failed.get(job) !== why) say(`job ${job}: not in its job COB yet: ${why}`);
        failed.set(job, why);
      }
    }
    for (const repository of unannounced) {
      const why = await deps
        .openCobs(repository)
        .announce()
        .then(
          () => null,
          (error: unknown) => (error instanceof Error ? error.message : String(error)),
        );
      if (why === null) unannounced.delete(repository);
      else if (failed.get(repository) !== why) say(`rad:${repository} is not announced yet: ${why}`);
      failed.set(repository, why ?? "");
    }
    if (isLast) return;
    const isQuiet = !hasFailed && unannounced.size === 0;
    pauseMs = isQuiet ? FIRST_PAUSE_MS : Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
    const until = AbortSignal.any([signal, changed]);
    // A timer holds for 24 days at most; what is due then is due now.
    await waitFor(isQuiet ? 24 * 3600_000 : pauseMs, until);
  }
}
