import { createHash } from "node:crypto";
import { access, mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  type ClientDeps,
  digestsOf,
  getJob,
  getNamespaceEvents,
  getStatements,
  getTrust,
  isFinalJobState,
  type JobDetail,
  jobIdSchema,
  type JobView,
  LIMITS,
  listJobs,
  isRefusal,
  parseJson,
  type SignedClaims,
  type Task,
  utf8,
  verifyStatement,
  wholeState,
} from "@plumule/protocol";
import { type Ask, asker } from "../ask.ts";
import { narrowPolicy, radicleSource, stepsToHear, type Trust, wordFor } from "../core/cob.ts";
import { writeDurably } from "../durable-file.ts";
import { waitFor } from "../waiting.ts";
import type { JobCobs } from "./rad-job.ts";
import { record } from "./record.ts";

/**
 * Whom a scribe believes (did:key of runners), and for which node it writes (`z6Mk…`). Where `trust` has no policy, that of the namespace counts, for these
 * keys. `repositories` (`z…`) empty: all.
 */
export type ScribeOptions = {
  url: string;
  namespace: string;
  /** A folder of its own, for what is not written yet. */
  state: string;
  radHome: string;
  node: string;
  trust: Trust;
  repositories: readonly string[];
};

export type ScribeDeps = {
  fetch: ClientDeps["fetch"];
  bearer: string | undefined;
  now: () => number;
  say: (line: string) => void;
  openCobs: (repository: string) => JobCobs;
  signal: AbortSignal;
};

const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;
/**
 * That a job has started is written when it has been at work so long, and another part of this that is each node's own, ms: nodes that begin at
 * the same time make a job COB each, and a short job is written in one go.
 */
const STARTED_AFTER_MS = 10_000;
const STARTED_SPREAD_MS = 20_000;
/** What could not be written after so long is given up, ms: its statements are kept longer, but nobody waits for it. */
const GIVE_UP_MS = 30 * 24 * 3600_000;

/**
 * Follows the events of a namespace, and writes into job COBs what has become of jobs about commits on Radicle: a Request for the commit, a Run with the URL
 * of the job's page, and Finished. A job whose end is not written yet has a file in `state`; that it is written stands in the COB itself, where a run is
 * known by node and URL, so that nothing is written twice whenever the process ends. Resolves when the signal aborts. Never rejects.
 */
export async function runScribe(options: ScribeOptions, deps: ScribeDeps): Promise<void> {
  const { signal, say } = deps;
  const pause = (ms: number): Promise<void> => waitFor(ms, signal);
  const ask = asker({ fetch: deps.fetch, url: options.url, bearer: deps.bearer, pause, say, signal });
  await mkdir(options.state, { recursive: true, mode: 0o700 });
  const desk = new Desk(options, deps, ask);
  for (const name of await readdir(options.state))
    if (name.endsWith(".json") && jobIdSchema.safeParse(name.slice(0, -5)).success) desk.work(name.slice(0, -5));
  await follow(options, deps, ask, (job) => desk.take(job));
  await desk.done();
}

/** Hands over every job of which there is something new. The cursor is kept once the jobs of a page are on disk. */
async function follow(
  { namespace: ns, state }: ScribeOptions,
  { signal, say }: ScribeDeps,
  ask: Ask,
  take: (job: JobView) => Promise<void>,
): Promise<void> {
  let since = await readFile(join(state, "cursor"), "utf8").catch(() => undefined);
  // What has happened before the first start is history.
  let isHistory = since === undefined;
  while (!signal.aborted) {
    const query = { wait: LIMITS.historyHoldMs / 1_000, ...(since === undefined ? {} : { since }) };
    const page = await ask(getNamespaceEvents, { params: { ns }, query });
    if (!page.ok && page.code === "left") return;
    if (page.ok) {
      const { events, cursor, more } = page.value.body;
      const jobs = new Map(events.flatMap(({ data: { job } }) => (job === undefined ? [] : [[job.id, job] as const])));
      if (!isHistory) for (const job of jobs.values()) await take(job);
      if (cursor !== since) await writeDurably(state, "cursor", cursor);
      since = cursor;
      isHistory &&= more;
      continue;
    }
    const listed = await ask(listJobs, { params: { ns }, query: { limit: LIMITS.listPage } });
    if (since === undefined || !listed.ok) {
      say(`the events of ${ns} cannot be read: ${page.detail}`);
      await waitFor(LONGEST_PAUSE_MS, signal);
      continue;
    }
    // The cursor is too old, or of a broker that has begun anew.
    say("the broker no longer has the events since then; looking at its newest jobs");
    for (const job of listed.value.body.items) await take(job);
    [since, isHistory] = [undefined, true];
  }
}

/** The jobs that are being written, one after the other: `rad-job` and announcing both move the node's signed refs. */
class Desk {
  readonly #options: ScribeOptions;
  readonly #deps: ScribeDeps;
  readonly #ask: Ask;
  #turn: Promise<unknown> = Promise.resolve();
  readonly #waiting = new Set<string>();
  readonly #failedCounts = new Map<string, number>();
  /** Jobs at work of which nothing is to be written now: most of their events change nothing. */
  readonly #settled = new Set<string>();
  /** Jobs of which it stands there that they have started. */
  readonly #begun = new Set<string>();

  constructor(options: ScribeOptions, deps: ScribeDeps, ask: Ask) {
    this.#options = options;
    this.#deps = deps;
    this.#ask = ask;
  }

  /** Notes a job, if it is about a commit that this node may write of, and with a step that has ended the job whose task file it is of. */
  async take(job: JobView): Promise<void> {
    const { state, radHome, repositories } = this.#options;
    const source = radicleSource(job);
    const isOver = isFinalJobState(job.state);
    const news = [
      ...(job.run === null || (this.#settled.has(job.id) && !isOver) ? [] : [job.id]),
      ...(job.step !== undefined && isOver ? [job.step.parent] : []),
    ];
    if (source === null || news.length === 0) return;
    if (repositories.length > 0 && !repositories.includes(source.id)) return;
    const isHere = await access(join(radHome, "storage", source.id)).then(
      () => true,
      () => false,
    );
    if (!isHere) return;
    for (const id of news) {
      await writeDurably(state, `${id}.json`, JSON.stringify({ job: id }));
      this.work(id);
    }
  }

  /** Puts a job that is on disk to the end of the line. */
  work(id: string): void {
    if (this.#waiting.has(id)) return;
    this.#waiting.add(id);
    this.#turn = this.#turn.then(() => this.#attempt(id));
  }

  /** Resolves when nothing is being written any more. */
  async done(): Promise<void> {
    for (let turn: unknown = null; turn !== this.#turn;) {
      turn = this.#turn;
      await turn;
    }
  }

  async #attempt(id: string): Promise<void> {
    const { signal, say } = this.#deps;
    this.#waiting.delete(id);
    if (signal.aborted) return;
    try {
      await this.#write(id);
      this.#failedCounts.delete(id);
    } catch (error) {
      const count = this.#failedCounts.get(id) ?? 0;
      this.#failedCounts.set(id, count + 1);
      if (count === 0) say(`job ${id}: ${error instanceof Error ? error.message : String(error)}; trying again`);
      const pauseMs = Math.min(FIRST_PAUSE_MS * 2 ** count, LONGEST_PAUSE_MS);
      void waitFor(pauseMs, signal).then(() => this.work(id));
    }
  }

  async #write(id: string): Promise<void> {
    const { url, namespace: ns, node } = this.#options;
    const { say, openCobs, now } = this.#deps;
    const file = join(this.#options.state, `${id}.json`);
    const read = await this.#ask(getJob, { params: { ns, job: id } });
    if (!read.ok && read.code === "left") return;
    const source = read.ok ? radicleSource(read.value.body.job) : null;
    if (!read.ok && read.code !== "gone") throw new Error(read.detail);
    if (!read.ok || source === null) return rm(file, { force: true });
    const { job } = read.value.body;
    if (now() - Date.parse(job.createdAt) > GIVE_UP_MS) {
      say(`job ${id}: given up, it is not in its job COB`);
      return rm(file, { force: true });
    }
    const { word, why, isOver } = await this.#wordFor(read.value.body);
    const log = `${url}/j/${id}`;
    if (word === "started") {
      if (this.#begun.has(id)) return;
      const waitMs = Date.parse(job.startedAt ?? job.createdAt) + startedAfterMs(node, id) - now();
      this.#settled.add(id);
      if (waitMs > 0) return void this.#later(id, waitMs);
    }
    if (word !== "nothing") {
      const cobs = openCobs(source.id);
      await during("it is not in its job COB yet", record(cobs, source.commit, { node, log, word }));
      await during("it is in its job COB, which nobody else has yet", cobs.announce());
      const because = why === undefined ? "" : `: ${why}`;
      say(`job ${id} ${word} in the job COB of ${source.commit.slice(0, 7)}, rad:${source.id}${because}`);
      this.#begun.add(id);
    } else if (isOver) say(`job ${id} is not written: none of its runners is believed`);
    if (!isOver) return;
    await rm(file, { force: true });
    this.#settled.delete(id);
    this.#begun.delete(id);
  }

  /** What is to be said of a job, which is over when all that its task file became is too: then each step's own runner has to have signed that it succeeded. */
  async #wordFor(detail: JobDetail): Promise<ReturnType<typeof wordFor> & { isOver: boolean }> {
    const { job, steps = [] } = detail;
    const state = wholeState(job, steps);
    const isOver = isFinalJobState(state);
    const trust = await this.#trust(isOver);
    const statements = isOver ? await this.#statements(job) : [];
    const said = wordFor({ ...detail, job: { ...job, state } }, statements, trust, this.#deps.now());
    if (said.word !== "succeeded") return { ...said, isOver };
    for (const { name, task } of stepsToHear(detail, statements)) {
      const id = steps.find((step) => step.name === name)?.id;
      if (id === undefined || task === null || !(await this.#hasSucceeded(id, task, trust)))
        return { word: "failed", why: `nobody whom it believes has signed that \`${name}\` succeeded`, isOver };
    }
    return { ...said, isOver };
  }

  async #hasSucceeded(id: string, task: Task, trust: Trust): Promise<boolean> {
    const read = await this.#ask(getJob, { params: { ns: this.#options.namespace, job: id } });
    if (!read.ok && read.code !== "gone") throw new Error(read.detail);
    if (!read.ok) return false;
    const statements = await this.#statements({ ...read.value.body.job, id }, (await digestsOf({ task })).taskSha256);
    return wordFor(read.value.body, statements, trust, this.#deps.now()).word === "succeeded";
  }

  async #later(id: string, waitMs: number): Promise<void> {
    await waitFor(waitMs, this.#deps.signal);
    // It is no longer there when the job has ended meanwhile.
    if (this.#settled.has(id)) this.work(id);
  }

  /** Whom to believe of a job; the namespace is asked for its policy when that matters. */
  async #trust(isOver: boolean): Promise<Trust> {
    const { namespace: ns, trust } = this.#options;
    if (trust.policy !== null || !isOver) return trust;
    const answer = await this.#ask(getTrust, { params: { ns } });
    if (!answer.ok) throw new Error(answer.detail);
    const { body } = answer.value;
    return { ...trust, policy: body === null ? null : narrowPolicy(body, trust.keys) };
  }

  /** What of the statements about a job verifies under a believed key. */
  async #statements(job: JobView, taskSha256?: string): Promise<SignedClaims[]> {
    const { namespace, trust } = this.#options;
    const answer = await this.#ask(getStatements, { params: { ns: namespace, job: job.id } });
    if (!answer.ok) throw new Error(answer.detail);
    const { deployment, id, source } = job;
    const about = { namespace, deployment, job: id, commit: source?.commit ?? null };
    const expected = taskSha256 === undefined ? about : { ...about, taskSha256 };
    const found: SignedClaims[] = [];
    for (const line of (await answer.value.response.text()).split("\n").filter((text) => text !== "")) {
      const envelope = parseJson(utf8(line));
      if (isRefusal(envelope)) continue;
      const checked = await verifyStatement(envelope.value, { signers: [...trust.keys], expected });
      if (checked.ok) found.push(checked);
    }
    return found;
  }
}

/** Work whose failure says what does not stand because of it. */
async function during(what: string, work: Promise<void>): Promise<void> {
  await work.catch((error: Error) => {
    throw new Error(`${what}: ${error.message}`, { cause: error });
  });
}

function startedAfterMs(node: string, job: string): number {
  const part = createHash("sha256").update(`${node} ${job}`).digest().readUInt32BE() / 2 ** 32;
  return STARTED_AFTER_MS + part * STARTED_SPREAD_MS;
}
