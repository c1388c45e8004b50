import { setTimeout as pause } from "node:timers/promises";
import { getDeploymentEvents, getDerivations, getJob, type JobView, type RunView } from "@plumule/protocol";
import { type Cable, layCable } from "./cable.ts";
import { SLOW_DERIVATION } from "./flake.ts";
import { findProcesses, type Process, stillAlive } from "./processes.ts";
import { DEPLOYMENT, NAMESPACE, type Stage } from "./stage.ts";
import { until } from "./until.ts";
import { jobOfCommit, type Watcher, watch } from "./watcher.ts";

/** A push and the job that came of it. Times are wall-clock ms of this machine, on which everything runs. */
export type Push = { commit: string; message: string; said: readonly string[]; startedAt: number; job: string };

/** Seconds that the slow derivation takes, unless something stops it. */
const GROW_SECONDS = 60;
/** How long the cable is out, ms. */
export const CUT_MS = 2_000;

/** Pushes a commit whose build takes long. */
export function pushSlowly(stage: Stage): Promise<Push> {
  return pushCommit(stage, "grow", GROW_SECONDS);
}

/** Pushes a commit whose build is quick. */
export function pushQuickly(stage: Stage): Promise<Push> {
  return pushCommit(stage, "grow faster", 0);
}

async function pushCommit({ garden, offer, ask }: Stage, message: string, growSeconds: number): Promise<Push> {
  const season = { system: offer.systems[0] ?? "", word: message, growSeconds };
  const commit = await garden.commit(message, season);
  const startedAt = Date.now();
  const said = await garden.push(commit);
  const job = /→ job ([0-9a-f-]{36}) queued/.exec(said.join("\n"))?.[1];
  if (job === undefined) throw new Error(`no job was named: ${said.join("; ")}`);
  const detail = await ask(getJob, { params: { ns: NAMESPACE, job } });
  if (detail.body.job.source?.commit !== commit) throw new Error(`job ${job} is about another commit`);
  return { commit, message, said, startedAt, job };
}

/** Somebody watches over a cable; the first build is at work. `processes` are those of its run; null where the system does not tell. */
export type FirstBuild = {
  watcher: Watcher;
  cable: Cable;
  run: RunView;
  firstLogAt: number;
  log: () => string;
  processes: readonly Process[] | null;
};

/** Watches the first job until its slow derivation is being built. */
export async function watchFirstBuild(stage: Stage, { job }: Push): Promise<FirstBuild> {
  const cable = await layCable(stage.broker.url);
  stage.keep(cable.close);
  const watcher = watch({ ...stage.broker, url: cable.url }, DEPLOYMENT, stage.signal);
  stage.keep(watcher.close);
  const assigned = await watcher.until("the assignment", 15_000, ({ jobs }) => jobs[job]?.run);
  const text = new TextDecoder();
  let log = "";
  let cameAt: number | null = null;
  watcher.log(assigned, {
    onBytes: (_, bytes) => {
      log += text.decode(bytes, { stream: true });
      cameAt ??= Date.now();
    },
  });
  // Asked, not watched: what was reported before the watcher's snapshot comes in no event.
  await until(`the build of ${SLOW_DERIVATION}`, 20_000, async () => {
    const { body } = await stage.ask(getDerivations, { params: { ns: NAMESPACE, job } });
    const { [job]: seen } = watcher.state().jobs;
    if (seen?.state === "failed") throw new Error(`the job failed: ${seen.reason?.detail}`);
    return body.nodes.find(({ name, state }) => name === SLOW_DERIVATION && state === "building") ?? null;
  });
  const firstLogAt = await until(`the log of ${SLOW_DERIVATION}`, 5_000, async () =>
    log.includes(`the ${SLOW_DERIVATION} goes up`) ? cameAt : null,
  );
  const { body } = await stage.ask(getJob, { params: { ns: NAMESPACE, job } });
  const run = body.runs.at(-1);
  if (run === undefined) throw new Error("the job has no run");
  const processes = findProcesses(run.id);
  if (processes?.length === 0) throw new Error("the build runs, but none of its processes was found");
  return { watcher, cable, run, firstLogAt, log: () => log, processes };
}

/** What the second push did. `cutAt` is the watcher's sequence when the cable was pulled. */
export type Replacement = {
  push: Push;
  replaced: JobView;
  stoppedProcessCount: number | null;
  cutAt: number;
  cutMs: number;
};

/** Pulls the cable, and while it is out pushes again: the second job takes the place of the first, whose processes end. */
export async function replaceInTheDark(
  stage: Stage,
  first: Push,
  { watcher, cable, processes }: FirstBuild,
): Promise<Replacement> {
  cable.pull();
  const pulledAt = performance.now();
  const plugAt = pause(CUT_MS);
  const cutAt = watcher.state().sequence;
  const push = await pushQuickly(stage);
  const replaced = await until("the end of the first job", 20_000, async () => {
    const { body } = await stage.ask(getJob, { params: { ns: NAMESPACE, job: first.job } });
    return body.job.finishedAt === null ? null : body.job;
  });
  if (replaced.state !== "superseded" || replaced.supersededBy !== push.job)
    throw new Error(`the first job ended ${replaced.state}, superseded by ${replaced.supersededBy ?? "nothing"}`);
  const survivors = stillAlive(processes ?? []);
  if (survivors.length > 0)
    throw new Error(
      `${survivors.length} processes outlived their job: ${survivors.map(({ command }) => command).join("; ")}`,
    );
  await plugAt;
  cable.plug();
  const cutMs = performance.now() - pulledAt;
  return { push, replaced, stoppedProcessCount: processes?.length ?? null, cutAt, cutMs };
}

/** How the watcher came back: what it had missed and got, and what it never got. */
export type Resumption = { recoveredCount: number; lostCount: number; eventCount: number };

/** Waits until the watcher has caught up and the second job has ended, then compares what it saw with the broker's history, event by event. */
export async function resume(
  stage: Stage,
  { watcher }: FirstBuild,
  { push, cutAt }: Replacement,
): Promise<Resumption & { job: JobView }> {
  const back = await watcher.until("the watcher's return", 15_000, (state) =>
    state.phase === "live" && state.sequence > cutAt ? state : null,
  );
  if (back.recovered !== true) throw new Error("the watcher had to start over instead of resuming");
  const job = await watcher.until("the end of the second job", 30_000, (state) => {
    const second = jobOfCommit(state, push.commit);
    return second?.finishedAt === null ? null : second;
  });
  if (job.state !== "succeeded") throw new Error(`the second job ended ${job.state}: ${job.reason?.detail ?? ""}`);
  const { sequence, gaps } = watcher.state();
  const seen = watcher.events().map(({ id }) => id);
  const first = Number(watcher.events()[0]?.sequence ?? 1);
  const { body } = await stage.ask(getDeploymentEvents, {
    params: { ns: NAMESPACE, deployment: DEPLOYMENT },
    query: { since: cursorBefore(watcher, first) },
  });
  const history = body.events.filter((event) => Number(event.sequence) <= sequence).map(({ id }) => id);
  if (seen.join() !== history.join())
    throw new Error(`the watcher saw ${seen.length} events, the history has ${history.length}`);
  return { job, recoveredCount: back.sequence - cutAt, lostCount: gaps, eventCount: seen.length };
}

function cursorBefore(watcher: Watcher, sequence: number): string {
  return `e${watcher.state().epoch}:${sequence - 1}`;
}
