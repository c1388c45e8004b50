import { existsSync } from "node:fs";
import { link, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  type Assignment,
  digestsOf,
  formatTime,
  type JobId,
  jobIdentity,
  makeJobId,
  type Millis,
  type PollBody,
  type ResultBody,
  type RunId,
  runIdOf,
  type SubmitBody,
} from "@plumule/protocol";
import { type Journal, openJournal } from "../journal.ts";
import { recordReader } from "../records.ts";
import { runFiles } from "../supervisor/files.ts";
import {
  afterResult,
  again,
  assignmentOf,
  type LocalJob,
  localJobSchema,
  lostJobs,
  nextJob,
  settledJobs,
  workOf,
} from "./local-job.ts";

/** What stands against beginning a job now: nothing, a time at which to look again (ms), or the broker's job of the same work. */
export type Clearance = "begin" | { laterAt: Millis } | { elsewhere: JobId };

export type DeskDeps = {
  /** A folder of its own. */
  folder: string;
  /** Where runs have their files. */
  runs: string;
  namespace: string;
  hasBroker: boolean;
  now: () => Millis;
  say: (line: string) => void;
};

/** Jobs that are kept after everything about them is done, so that their work is not done again. */
const KEPT_COUNT = 1_000;

/** The jobs that the runner gives itself, on disk: what a broker is to others, this is to them. */
export class Desk {
  readonly #deps: DeskDeps;
  readonly #journal: Journal<LocalJob>;
  #changed = new AbortController();
  #arrived = new AbortController();
  #turn: Promise<unknown> = Promise.resolve();

  /** `isKnown`: whether the runner knows of a run, or has its result. One that began and that it knows nothing of is begun anew. */
  static async open(deps: DeskDeps, isKnown: (run: RunId) => boolean): Promise<Desk> {
    const journal = await openJournal<LocalJob>(deps.folder, recordReader(localJobSchema));
    for (const path of journal.setAside) deps.say(`set aside a record that cannot be read: ${path}`);
    const desk = new Desk(deps, journal);
    for (const job of desk.list()) {
      if (job.state === "running" && !isKnown(job.run)) await desk.#put(again(job, 0));
      desk.#wakeFor(job);
    }
    return desk;
  }

  private constructor(deps: DeskDeps, journal: Journal<LocalJob>) {
    this.#deps = deps;
    this.#journal = journal;
  }

  list(): LocalJob[] {
    return [...this.#journal.list().values()];
  }

  /** Where a job's log is kept after its end. */
  logOf({ run }: LocalJob): string {
    return join(this.#deps.folder, `${run}.log`);
  }

  /** Aborted when something has changed next. */
  change(): AbortSignal {
    return this.#changed.signal;
  }

  /** Aborted when there is something to begin next. */
  arrival(): AbortSignal {
    return this.#arrived.signal;
  }

  /** Takes work in, unless the same was taken before; then null. Resolves when it is on the disk. */
  offer({ deployment, spec }: { deployment: string; spec: SubmitBody }): Promise<LocalJob | null> {
    return this.#inTurn(async () => {
      const digests = await digestsOf(spec);
      const identity = await jobIdentity(workOf({ spec, ...digests }));
      if (this.list().some((job) => job.identity === identity)) return null;
      // Ids sort in the order of the pushes, also of those of one millisecond.
      const at = Math.max(this.#deps.now(), ...this.list().map(({ createdAt }) => Date.parse(createdAt) + 1));
      const job = makeJobId(at, crypto.getRandomValues(new Uint8Array(8)));
      return this.#put({
        job,
        deployment,
        identity,
        spec,
        ...digests,
        createdAt: formatTime(at),
        state: "waiting",
        attempt: 1,
        run: runIdOf(job, 1),
        given: null,
        readyAt: 0,
        startedAt: null,
        result: null,
        elsewhere: null,
        said: "nothing",
        told: false,
      });
    });
  }

  /** Notes that this was written into the job COB, or told the broker. */
  note(id: JobId, changes: Partial<Pick<LocalJob, "said" | "told">>): Promise<void> {
    return this.#inTurn(async () => {
      const job = this.#journal.get(id);
      if (job !== undefined) await this.#put({ ...job, ...changes });
    });
  }

  /** Work for a poll: again what this very poll was given before, or where there is room the next job that is cleared. */
  give(
    { requestKey, busy, offer, waitMs }: PollBody,
    clear: (job: LocalJob) => Promise<Clearance>,
  ): Promise<Assignment | null> {
    return this.#inTurn(async () => {
      const { namespace, now } = this.#deps;
      const same = this.list().find(({ state, given }) => state === "given" && given?.requestKey === requestKey);
      if (same !== undefined) return assignmentOf(namespace, same, requestKey, now());
      if (waitMs === 0 || busy >= offer.capacity) return null;
      for (const lost of lostJobs(this.list(), now())) await this.#put(again(lost, 0));
      const next = await this.#nextCleared(clear);
      if (next === null) return null;
      const given = await this.#put({ ...next, state: "given", given: { requestKey, at: now() } });
      return assignmentOf(namespace, given, requestKey, now());
    });
  }

  /** A run is at work. False: it is not, or no longer, that of any job. */
  beat(run: RunId): Promise<boolean> {
    return this.#inTurn(async () => {
      const job = this.#jobOf(run);
      if (job?.state === "given")
        await this.#put({ ...job, state: "running", startedAt: formatTime(this.#deps.now()) });
      return job?.state === "given" || job?.state === "running";
    });
  }

  /** A run has ended; null when it is not that of any job. Its log is kept with the job. */
  end(run: RunId, result: ResultBody): Promise<LocalJob | null> {
    return this.#inTurn(async () => {
      const job = this.#jobOf(run);
      if (job === undefined || job.state === "ended") return job ?? null;
      const ended = afterResult(job, result, this.#deps.now());
      if (ended.state === "ended") {
        const { log } = runFiles(this.#deps.runs, run);
        await rm(this.logOf(ended), { force: true });
        // A second name for the same bytes: the run's own folder goes as soon as its result was taken.
        if (existsSync(log)) await link(log, this.logOf(ended));
        this.#deps.say(`job ${job.job}: ${result.outcome}; its log is ${this.logOf(ended)}`);
      } else this.#deps.say(`job ${job.job}: ${result.reason?.detail ?? result.outcome} It is tried again.`);
      return this.#put(ended);
    });
  }

  #jobOf(run: RunId): LocalJob | undefined {
    return this.list().find((job) => job.run === run);
  }

  async #nextCleared(clear: (job: LocalJob) => Promise<Clearance>): Promise<LocalJob | null> {
    const { now, say } = this.#deps;
    for (let job = nextJob(this.list(), now()); job !== null; job = nextJob(this.list(), now())) {
      const clearance = await clear(job);
      if (clearance === "begin") return job;
      if ("laterAt" in clearance) {
        await this.#put({ ...job, readyAt: clearance.laterAt });
        continue;
      }
      const { elsewhere } = clearance;
      say(`job ${job.job}: the broker has this work as job ${elsewhere}`);
      await this.#put({ ...job, state: "ended", elsewhere, said: "ended", told: true });
    }
    return null;
  }

  async #put(job: LocalJob): Promise<LocalJob> {
    await this.#journal.put(job.job, job);
    for (const old of settledJobs(this.list(), KEPT_COUNT, this.#deps.hasBroker)) {
      await rm(this.logOf(old), { force: true });
      await this.#journal.remove(old.job);
    }
    this.#wake();
    this.#wakeFor(job);
    return job;
  }

  #wake(): void {
    this.#changed.abort();
    this.#changed = new AbortController();
    if (nextJob(this.list(), this.#deps.now()) === null) return;
    this.#arrived.abort();
    this.#arrived = new AbortController();
  }

  #wakeFor({ readyAt }: LocalJob): void {
    const leftMs = readyAt - this.#deps.now();
    if (leftMs > 0) setTimeout(() => this.#wake(), leftMs).unref();
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => {});
    return turn;
  }
}
