import {
  type Event,
  type FollowEnd,
  getDerivations,
  getJob,
  initialWatch,
  isFinalJobState,
  type JobDetail,
  type JobId,
  type JobView,
  listRunners,
  parseCursor,
  type WatchState,
} from "@plumule/protocol";
import type { Connection } from "./connection.ts";
import { EXIT, type ExitCode, exitOfProblem, exitOfWhole } from "./exit-codes.ts";
import { type Failure, isFailure } from "./failure.ts";
import { createLiveView } from "./live-view.ts";
import { paint, shortId, type Terminal } from "./print.ts";
import { newestOf } from "./resolve.ts";
import {
  changeLine,
  derivationLines,
  endLine,
  hintForWhole,
  jobBlock,
  lastLines,
  stepLines,
  type RunnerNames,
  type Screen,
} from "./watch-render.ts";

/** How often a screen is painted again, ms: a clock that ticks, and no more than an eye can follow. */
const PAINT_MS = 200;

/** What is watched: one job, or (without `job`) a lane until nothing is left to do in it. `since` is the cursor of a submit's answer. */
export type Watched = { deployment: string; job?: JobView; since?: string; timeoutMs?: number | undefined };

/**
 * Shows what happens until the job ends (or the lane is empty), through every cut of the connection, and returns the exit code of its
 * result. Ctrl-C lets go of it: the job goes on.
 */
export async function watch(connection: Connection, terminal: Terminal, watched: Watched): Promise<ExitCode | Failure> {
  const names = await runnerNames(connection);
  const view = createLiveView(terminal);
  const stop = new AbortController();
  let why: "over" | "interrupted" | "timeout" = "over";
  const end = (reason: typeof why): void => {
    why = reason;
    stop.abort();
  };
  const interrupt = (): void => end("interrupted");
  process.once("SIGINT", interrupt);
  const timer = watched.timeoutMs === undefined ? null : setTimeout(() => end("timeout"), watched.timeoutMs);

  const session = createSession(connection, terminal, watched, names, view.print);
  const repaint = (): void => view.paint(session.block());
  const painter = terminal.isScreen ? setInterval(repaint, PAINT_MS) : null;
  const follower = connection.follow(watched.deployment, {
    from: session.state(),
    signal: stop.signal,
    onState(state, events) {
      if (session.take(state, events)) end("over");
    },
  });
  const ended = await follower.done;
  if (painter !== null) clearInterval(painter);
  if (timer !== null) clearTimeout(timer);
  process.removeListener("SIGINT", interrupt);
  view.paint([]);
  if (ended.ended === "refused") return refusal(ended);
  if (why === "over") return session.conclude();
  return letGo(terminal, session.job(), why);
}

type Session = {
  state: () => WatchState;
  /** Shows what changed. True when there is nothing more to wait for. */
  take: (state: WatchState, events: readonly Event[]) => boolean;
  block: () => string[];
  job: () => JobView | undefined;
  conclude: () => Promise<ExitCode>;
};

function createSession(
  connection: Connection,
  terminal: Terminal,
  { deployment, job: only, since }: Watched,
  names: RunnerNames,
  print: (line: string) => void,
): Session {
  let state = startingState(only, since);
  let begun = since !== undefined;
  let own = only;
  /** Derivations that were known before watching began; a snapshot does not carry them. */
  const before = new Map<JobId, WatchState["derivations"][JobId]>();
  const told = new Set<JobId>();
  const isWatched = ({ id, step }: JobView): boolean =>
    only === undefined || id === only.id || step?.parent === only.id;
  const jobs = (): JobView[] => Object.values(state.jobs).filter(isWatched);
  const openJobs = (): JobView[] => jobs().filter((job) => !isFinalJobState(job.state));
  const say = (time: string, line: string | null): void => {
    if (line !== null) print(`${paint.quiet(clockTime(time))}  ${line}`);
  };
  /** What was the case when watching began, as a line or as a document. */
  const begin = (job: JobView): void => {
    if (terminal.json) terminal.data({ type: "snapshot", job });
    else say(new Date().toISOString(), standLine(job, names));
    if (job.run !== null)
      void readDerivations(connection, job.id).then((derivations) => before.set(job.id, derivations));
  };
  const show = (event: Event): void => {
    const { job } = event.data;
    if (job === undefined || !isWatched(job)) return;
    if (terminal.json) return terminal.data(event);
    say(event.time, changeLine(event, names));
    if (isFinalJobState(job.state) && !told.has(job.id)) {
      told.add(job.id);
      for (const line of lastLines(job)) print(`          ${line}`);
    }
    // A screen shows what is built while it is built; only what broke should stay.
    for (const line of derivationLines(event, { onlyFailed: terminal.isScreen })) say(event.time, line);
  };
  /** The job whose end is the end of it all: of a lane, its newest. */
  const last = (): JobView | undefined => (only === undefined ? lastOfLane(state) : own);
  return {
    state: () => state,
    job: last,
    take(next, events) {
      if (!terminal.isScreen && next.phase === "offline" && state.phase === "live")
        terminal.note("the connection is lost; connecting again");
      if (next.resets > state.resets) terminal.note("changes were missed; what follows is how it stands now");
      state = next;
      // What has long ended may be gone from the state, and its steps go on.
      if (only !== undefined) own = next.jobs[only.id] ?? own;
      if (!begun && next.phase === "live") {
        begun = true;
        for (const job of openJobs()) begin(job);
      }
      for (const event of events) show(event);
      return next.phase === "live" && openJobs().length === 0;
    },
    block: () => blocks(state, openJobs(), { before, names, size: terminal.size() }),
    async conclude() {
      const job = last();
      if (job !== undefined) return tellEnd(connection, terminal, { job, isTold: told.has(job.id) }, { say, print });
      if (terminal.json) terminal.data({ type: "end", job: null, exitCode: EXIT.ok });
      else terminal.note(`nothing is going on in ${deployment}  ${paint.quiet(`→ plumule submit ${deployment}`)}`);
      return EXIT.ok;
    },
  };
}

/** Says how it all ended, with the jobs that a task file became; the code is that of the worst of them. */
async function tellEnd(
  connection: Connection,
  terminal: Terminal,
  { job, isTold }: { job: JobView; isTold: boolean },
  { say, print }: { say: (time: string, line: string | null) => void; print: (line: string) => void },
): Promise<ExitCode> {
  const steps = await stepsOf(connection, job);
  const code = exitOfWhole(job, steps);
  if (terminal.json) terminal.data({ type: "end", job, ...(steps.length === 0 ? {} : { steps }), exitCode: code });
  else {
    if (!isTold) say(job.finishedAt ?? job.createdAt, endLine(job));
    for (const line of [...(isTold ? [] : lastLines(job)), ...stepLines(steps)]) print(`          ${line}`);
    terminal.note(paint.quiet(`→ ${hintForWhole(job, steps)}`));
  }
  return code;
}

/** The job of a lane whose end is its end: of the jobs that a task file became, the one that stands for all of them. */
function lastOfLane({ jobs }: WatchState): JobView | undefined {
  const newest = newestOf(Object.values(jobs));
  return newest?.step === undefined ? newest : (jobs[newest.step.parent] ?? newest);
}

/** The jobs that the task file of a job became, as they stand now; none for any other job, or where the broker cannot be asked. */
async function stepsOf(connection: Connection, { id, stepCount }: JobView): Promise<NonNullable<JobDetail["steps"]>> {
  if (stepCount === undefined) return [];
  const answer = await connection.ask(getJob, { params: { ns: connection.ns, job: id } });
  return isFailure(answer) ? [] : (answer.body.steps ?? []);
}

/** How a job stands, in the words of the change that brought it there. */
function standLine(job: JobView, names: RunnerNames): string | null {
  const type = job.state === "running" ? "job.phase" : `job.${job.state}`;
  return changeLine({ type, data: { job } }, names);
}

/** The blocks of all jobs that go on, as many as the screen has room for. */
function blocks(
  state: WatchState,
  open: readonly JobView[],
  seen: { before: ReadonlyMap<JobId, WatchState["derivations"][JobId]>; names: RunnerNames; size: Screen },
): string[] {
  const { columns, rows } = seen.size;
  const shown = open.slice(0, Math.max(1, Math.floor(rows / 6)));
  return shown.flatMap(({ id }) => {
    const derivations = { ...state.derivations, [id]: { ...seen.before.get(id), ...state.derivations[id] } };
    const view = { state: { ...state, derivations }, job: id, names: seen.names, now: Date.now() };
    return jobBlock(view, { columns, rows: Math.floor(rows / shown.length) });
  });
}

async function readDerivations(connection: Connection, job: JobId): Promise<WatchState["derivations"][JobId]> {
  const answer = await connection.ask(getDerivations, { params: { ns: connection.ns, job } });
  return isFailure(answer) ? {} : Object.fromEntries(answer.body.nodes.map((node) => [node.drv, node]));
}

/** From the answer of a submit watching goes on without a snapshot, so that every change since is shown. */
function startingState(job: JobView | undefined, since: string | undefined): WatchState {
  const at = since === undefined ? null : parseCursor(since);
  if (job === undefined || since === undefined || at === null) return initialWatch();
  return { ...initialWatch(), cursor: since, epoch: at.epoch, sequence: at.sequence, jobs: { [job.id]: job } };
}

function letGo(terminal: Terminal, job: JobView | undefined, why: "interrupted" | "timeout"): ExitCode {
  if (job !== undefined && terminal.json) terminal.data({ type: why, job });
  else if (job !== undefined) {
    const id = shortId(job.id);
    terminal.note(
      `${why === "timeout" ? "the time is over" : "detached"}; job ${id} goes on  ${paint.quiet(`→ plumule watch ${id}  or  plumule cancel ${id}`)}`,
    );
  }
  if (why === "interrupted") return EXIT.interrupted;
  return job?.waiting?.reason === "no-runner" ? EXIT.noRunner : EXIT.timeout;
}

function refusal({ code, detail, next }: Extract<FollowEnd, { ended: "refused" }>): Failure {
  // Close codes of streams are HTTP statuses, 4000 higher.
  const status = code >= 4000 ? code - 4000 : code;
  return { exit: exitOfProblem({ status, code: "stream" }), what: "The broker ended the stream", why: detail, next };
}

async function runnerNames(connection: Connection): Promise<RunnerNames> {
  const answer = await connection.ask(listRunners, { params: { ns: connection.ns }, query: { limit: 200 } });
  return new Map(isFailure(answer) ? [] : answer.body.items.map(({ id, name }) => [id, name]));
}

function clockTime(time: string): string {
  return new Date(time).toLocaleTimeString("en-GB", { hour12: false });
}
