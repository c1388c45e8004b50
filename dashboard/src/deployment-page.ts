import {
  call,
  type Derivation,
  followDeployment,
  type Follower,
  getDerivations,
  getJob,
  initialWatch,
  type JobId,
  type JobView,
  listRunners,
  type RunId,
  type RunnerView,
  streamOpener,
  waitMs,
  type WatchState,
} from "@plumule/protocol";
import { connectionChip } from "./connection.ts";
import { eachFrame, fill, fillList, h } from "./dom.ts";
import { jobDetails, nameOf } from "./job-view.ts";
import { createLockBook } from "./lock-book.ts";
import { type LogView, showLog } from "./log-view.ts";
import { runnerComparison } from "./runner-comparison.ts";
import { scheduleSection } from "./schedules.ts";
import type { Session } from "./session.ts";
import { createVoteBook } from "./votes.ts";
import { clock, deploymentPath, jobPath, pill } from "./words.ts";

/** The page of a job: finds its deployment first. A job that cannot be read is explained. */
export async function showJob(session: Session, id: JobId, signal: AbortSignal): Promise<HTMLElement> {
  const answer = await call(session.client, getJob, { params: { ns: session.ns, job: id }, signal });
  if (!answer.ok)
    return h(
      "main",
      {},
      h("h1", {}, "No such job"),
      h("p", {}, answer.problem.detail),
      h("p", {}, answer.problem.next),
      h("a", { href: "/" }, "All deployments"),
    );
  return showDeployment(session, answer.answer.body.job.deployment, answer.answer.body.job, signal);
}

/** Follows a deployment: the given job of it, or else always the one that runs now, or the newest. */
export function showDeployment(
  session: Session,
  deployment: string,
  pinned: JobView | null,
  signal: AbortSignal,
): HTMLElement {
  const chip = connectionChip();
  const details = jobDetails();
  const status = h("span");
  const jobs = h("ul", { class: "rows", "aria-label": "Jobs" });
  const schedules = scheduleSection();
  const log = logSlot(session, () => follower);
  const runners = learnRunners(session, signal, () => draw());
  const graphs = createGraphs(session, signal, () => draw());
  const votes = createVoteBook(session, signal, () => draw());
  const locks = createLockBook(session, signal, () => draw());
  const comparison = runnerComparison(session, signal);
  let state: WatchState = initialWatch();

  const draw = eachFrame(() => {
    if (signal.aborted) return;
    const all = Object.values(state.jobs).toSorted((a, b) => (a.id < b.id ? 1 : -1));
    const job = pinned === null ? chooseJob(state, all) : (state.jobs[pinned.id] ?? pinned);
    fill(status, ...(state.deployment === null ? [] : [pill(state.deployment.state)]));
    fillList(
      jobs,
      "li",
      all,
      ({ id }) => id,
      (row, one) => drawRow(row, one, one.id === job?.id),
    );
    schedules.show(state.deployment?.schedules ?? []);
    details.element.hidden = job === null;
    if (job === null) return;
    document.title = `${job.state} · ${deployment}`;
    const steps = all.filter(({ step }) => step?.parent === job.id).toReversed();
    details.show(locks.of(job), graphs.of(job, state), votes.of(job), runners, steps);
    comparison.show(job);
    log.show(job.run);
  });
  const follower = followDeployment(
    {
      open: streamOpener(session.client, WebSocket, { ns: session.ns, deployment }),
      random: Math.random,
      wait: waitMs,
    },
    {
      signal,
      onState(next) {
        // After a reset the graph is asked for again: events of it may have been missed.
        if (next.resets > state.resets) graphs.clear();
        state = next;
        chip.show(state.phase, state.received);
        draw();
      },
    },
  );
  void follower.done.then((end) => end.ended === "refused" && chip.fail(`${end.detail} ${end.next}`));
  document.addEventListener("keydown", (event) => onKey(event, log.toggleFollow), { signal });

  const title = h("h1", {}, h("a", { href: deploymentPath(deployment) }, deployment), " ", status);
  return h(
    "main",
    {},
    h("a", { class: "back", href: "/" }, "← All deployments"),
    h("header", { class: "top" }, title, chip.element),
    details.element,
    comparison.element,
    log.element,
    schedules.element,
    h("section", {}, h("h2", {}, "Jobs"), jobs),
  );
}

/** The runners by key, asked for once. */
function learnRunners(session: Session, signal: AbortSignal, changed: () => void): ReadonlyMap<string, RunnerView> {
  const runners = new Map<string, RunnerView>();
  const learn = async (): Promise<void> => {
    const answer = await call(session.client, listRunners, { params: { ns: session.ns }, signal });
    if (answer.ok) for (const runner of answer.answer.body.items) runners.set(runner.id, runner);
    changed();
  };
  void learn().catch(() => undefined);
  return runners;
}

/** Where the log of the shown run is; another run has another log. */
function logSlot(
  session: Session,
  follower: () => Follower,
): { element: HTMLElement; show: (run: RunId | null) => void; toggleFollow: () => void } {
  const element = h("section", { hidden: "" }, h("h2", {}, "Log"));
  let shown: (LogView & { run: RunId }) | null = null;
  return {
    element,
    show(run) {
      if (run === (shown?.run ?? null)) return;
      shown?.stop();
      shown?.element.remove();
      shown = run === null ? null : { ...showLog(session, follower(), run), run };
      if (shown !== null) element.append(shown.element);
      element.hidden = shown === null;
    },
    toggleFollow: () => shown?.toggleFollow(),
  };
}

/** The derivations of jobs: those that were planned before this page came, asked for once, and what events say since. */
function createGraphs(
  session: Session,
  signal: AbortSignal,
  changed: () => void,
): { of: (job: JobView, state: WatchState) => Derivation[]; clear: () => void } {
  const planned = new Map<JobId, readonly Derivation[]>();
  const learn = async (job: JobId): Promise<void> => {
    planned.set(job, []);
    const answer = await call(session.client, getDerivations, { params: { ns: session.ns, job }, signal });
    if (answer.ok) planned.set(job, answer.answer.body.nodes);
    changed();
  };
  return {
    of({ id, run }, state) {
      if (run !== null && !planned.has(id)) learn(id).catch(() => planned.delete(id));
      const byDrv = new Map((planned.get(id) ?? []).map((one) => [one.drv, one]));
      for (const one of Object.values(state.derivations[id] ?? {})) byDrv.set(one.drv, one);
      return [...byDrv.values()];
    },
    clear: () => planned.clear(),
  };
}

function chooseJob({ deployment }: WatchState, newestFirst: readonly JobView[]): JobView | null {
  return newestFirst.find(({ id }) => id === deployment?.activeJob) ?? newestFirst[0] ?? null;
}

function drawRow(row: HTMLElement, job: JobView, isShown: boolean): void {
  const current: Record<string, string> = isShown ? { "aria-current": "true" } : {};
  fill(
    row,
    h("a", { class: "name", href: jobPath(job.id), ...current }, nameOf(job)),
    pill(job.state),
    h("code", { class: "quiet" }, job.source?.commit.slice(0, 10) ?? ""),
    h("span", { class: "last quiet" }, clock(job.createdAt)),
  );
}

/** `f` follows the log again, unless somebody is typing or means a shortcut of the browser. */
function onKey(event: KeyboardEvent, toggleFollow: () => void): void {
  const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey;
  if (isPlain && event.key === "f" && !(event.target instanceof HTMLInputElement)) toggleFollow();
}
