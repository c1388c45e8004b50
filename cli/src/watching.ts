import {
  type Event,
  type FollowEnd,
  getDerivations,
  initialWatch,
  isFinalJobState,
  type JobId,
  type JobView,
  listRunners,
  parseCursor,
  type WatchState,
} from "@plumule/protocol";
import type { Connection } from "./connection.ts";
import { EXIT, type ExitCode, exitOfJob, exitOfProblem } from "./exit-codes.ts";
import { type Failure, isFailure } from "./failure.ts";
import { createLiveView } from "./live-view.ts";
import { paint, shortId, type Terminal } from "./print.ts";
import { newestOf } from "./resolve.ts";
import { changeLine, derivationLines, endLine, hintFor, jobBlock, type RunnerNames } from "./watch-render.ts";

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
  conclude: () => ExitCode;
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
  /** Derivations that were known before watching began; a snapshot does not carry them. */
  const before = new Map<JobId, WatchState["derivations"][JobId]>();
  const told = new Set<JobId>();
  const isWatched = (id: JobId | undefined): boolean => id !== undefined && (only === undefined || id === only.id);
  const jobs = (): JobView[] => Object.values(state.jobs).filter(({ id }) => isWatched(id));
  const say = (time: string, line: string): void => print(`${paint.quiet(clockTime(time))}  ${line}`);

  /** What was the case when watching began, as a line or as a document. */
  const begin = (): void => {
    begun = true;
    for (const job of only === undefined ? jobs().filter(({ state: one }) => !isFinalJobState(one)) : jobs()) {
      if (terminal.json) terminal.data({ type: "snapshot", job });
      else if (!isFinalJobState(job.state)) {
        const line = changeLine(
          { type: `job.${job.state === "running" ? "phase" : job.state}`, data: { job } } as Event,
          names,
        );
        if (line !== null) say(new Date().toISOString(), line);
      }
      if (job.run !== null)
        void connection.ask(getDerivations, { params: { ns: connection.ns, job: job.id } }).then((answer) => {
          if (!isFailure(answer))
            before.set(job.id, Object.fromEntries(answer.body.nodes.map((node) => [node.drv, node])));
        });
    }
  };
  const show = (event: Event): void => {
    if (!isWatched(event.data.job?.id)) return;
    if (terminal.json) return terminal.data(event);
    const line = changeLine(event, names);
    if (line !== null) say(event.time, line);
    if (event.data.job !== undefined && isFinalJobState(event.data.job.state)) told.add(event.data.job.id);
    for (const one of derivationLines(event)) if (!terminal.isScreen) say(event.time, one);
  };
  /** The job whose end is the end of it all: of a lane, its newest. */
  const last = (): JobView | undefined => (only === undefined ? newestOf(jobs()) : state.jobs[only.id]);
  return {
    state: () => state,
    job: last,
    take(next, events) {
      const cut = next.phase === "offline" && state.phase !== "offline";
      const back = next.phase === "live" && state.phase !== "live" && next.received + next.resets > 0 && begun;
      state = next;
      if (cut && !terminal.isScreen) terminal.note("the connection is lost; connecting again");
      if (back && next.recovered === false && next.resets > 0)
        terminal.note("some changes were missed; this is how it stands now");
      if (!begun && next.phase === "live") begin();
      for (const event of events) show(event);
      return next.phase === "live" && jobs().every((job) => isFinalJobState(job.state));
    },
    block() {
      const now = Date.now();
      const open = jobs().filter((job) => !isFinalJobState(job.state));
      const { columns, rows } = terminal.size();
      const share = Math.max(6, Math.floor(rows / Math.max(1, open.length)));
      return open.slice(0, Math.max(1, Math.floor(rows / 6))).flatMap(({ id }) => {
        const derivations = { ...state.derivations, [id]: { ...before.get(id), ...state.derivations[id] } };
        return jobBlock({ state: { ...state, derivations }, job: id, names, now }, { columns, rows: share });
      });
    },
    conclude() {
      const job = last();
      if (job === undefined) {
        if (terminal.json) terminal.data({ type: "end", job: null, exitCode: EXIT.ok });
        else terminal.note(`nothing is going on in ${deployment}  ${paint.quiet(`→ plumule submit ${deployment}`)}`);
        return EXIT.ok;
      }
      const code = exitOfJob(job);
      if (terminal.json) terminal.data({ type: "end", job, exitCode: code });
      else {
        if (!told.has(job.id)) say(job.finishedAt ?? job.createdAt, endLine(job));
        terminal.note(paint.quiet(`→ ${hintFor(job)}`));
      }
      return code;
    },
  };
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
