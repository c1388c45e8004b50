import {
  describeCounts,
  type Derivation,
  isFinalJobState,
  type JobView,
  PHASES,
  type Phase,
  type QuorumView,
  type RunnerView,
} from "@plumule/protocol";
import { fill, fillList, h } from "./dom.ts";
import { type Votes, voteMatrix } from "./votes.ts";
import { clock, duration, jobPath, pill, plain, shortRunner } from "./words.ts";

/** Derivations in the table; the others are counted. */
const ROWS_MAX = 200;
/** What a reader looks for first. */
const ORDER: readonly Derivation["state"][] = [
  "failed",
  "hash-mismatch",
  "not-deterministic",
  "timeout",
  "log-limit",
  "lost",
  "building",
  "waiting",
  "substituting",
  "planned",
];

/** Everything of one job but its log. `show` brings it up to date. */
export type JobDetails = {
  element: HTMLElement;
  show: (
    job: JobView,
    derivations: readonly Derivation[],
    votes: Votes | null,
    runners: ReadonlyMap<string, RunnerView>,
    steps: readonly JobView[],
  ) => void;
};

/** Makes the parts of a job's page; one set serves whichever job is shown. */
export function jobDetails(): JobDetails {
  const line = h("p", { class: "job" });
  const phases = h("ol", { class: "phases", "aria-label": "Phases" });
  const why = h("p", { class: "why" });
  const said = h("pre", { class: "said", "aria-label": "Last lines of what failed" });
  const facts = h("dl", { class: "facts" });
  const count = h("p", { class: "count quiet" });
  const bar = h("progress", { max: "1", value: "0", "aria-label": "Derivations done" });
  const rows = h("tbody");
  const head = h(
    "thead",
    {},
    h("tr", {}, ...["derivation", "state", "phase", "time"].map((name) => h("th", { scope: "col" }, name))),
  );
  const table = h(
    "section",
    {},
    h("h2", {}, "Derivations"),
    count,
    bar,
    h("div", { class: "scroll" }, h("table", {}, head, rows)),
  );
  const matrix = voteMatrix();
  let lastPhase: Phase | null = null;
  let lastJob = "";

  return {
    element: h("div", {}, line, phases, why, said, facts, matrix.element, table),
    show(job, derivations, votes, runners, steps) {
      if (job.id !== lastJob) lastPhase = null;
      lastJob = job.id;
      lastPhase = job.phase ?? lastPhase;
      fill(line, pill(job.state), " ", h("a", { href: jobPath(job.id) }, nameOf(job)));
      drawPhases(phases, job, lastPhase);
      const sentence = whySentence(job);
      why.hidden = sentence === "";
      fill(why, sentence);
      const lines = job.reason?.lines ?? [];
      said.hidden = lines.length === 0;
      fill(said, plain(lines.join("\n")));
      fill(facts, ...factsOf(job, runners, steps));
      matrix.show(votes, runners);
      table.hidden = derivations.length === 0;
      drawProgress(count, bar, job, derivations.length);
      const sorted = derivations.toSorted((a, b) => rank(a) - rank(b) || (a.name < b.name ? -1 : 1));
      fillList(rows, "tr", sorted.slice(0, ROWS_MAX), ({ drv }) => drv, drawDerivation);
    },
  };
}

/** What people call a job: the step of a task file that it is, its summary, else what kind of job it is; behind the schedule that made it, because it repeats another. */
export function nameOf({ summary, type, kind, step, schedule }: JobView): string {
  return plain(`${schedule === undefined ? "" : `${schedule.name}: `}${step?.name ?? summary ?? type ?? kind}`);
}

function drawPhases(list: HTMLElement, job: JobView, phase: Phase | null): void {
  const isOver = isFinalJobState(job.state);
  const current = phase === null ? -1 : PHASES.indexOf(phase);
  const doneUntil = job.state === "succeeded" ? PHASES.length : current;
  const items = PHASES.map((name, index) => {
    const look = index < doneUntil ? "done" : index === current ? (isOver ? "stopped" : "current") : "";
    return h("li", { class: look, ...(look === "current" ? { "aria-current": "step" } : {}) }, name);
  });
  fill(list, ...items);
}

/** Why the job waits, or why it ended as it did. */
function whySentence({ waiting, reason, supersededBy }: JobView): string {
  if (waiting !== null) return plain(waiting.detail);
  if (reason === null) return "";
  return plain(`${reason.code}: ${reason.detail}`) + (supersededBy === null ? "" : ` (by job ${supersededBy})`);
}

function factsOf(job: JobView, runners: ReadonlyMap<string, RunnerView>, steps: readonly JobView[]): HTMLElement[] {
  const fact = (name: string, ...value: (Node | string)[]): HTMLElement =>
    h("div", {}, h("dt", {}, name), h("dd", {}, ...value));
  const { source, run, runner, startedAt, finishedAt } = job;
  const facts = [fact("submitted", clock(job.createdAt), ` by ${plain(job.actor)}`)];
  if (source !== null)
    facts.push(
      fact("commit", h("code", { title: source.commit }, source.commit.slice(0, 10)), ` ${plain(source.ref ?? "")}`),
    );
  if (runner !== null)
    facts.push(fact("runner", h("span", { title: runner }, plain(runners.get(runner)?.name ?? shortRunner(runner)))));
  if (run !== null)
    facts.push(
      fact(
        "run",
        h("code", { title: run }, run.slice(0, 18)),
        job.attempt > 1 && job.quorum === undefined ? ` attempt ${job.attempt}` : "",
      ),
    );
  if (job.schedule !== undefined)
    facts.push(
      fact(
        "schedule",
        plain(job.schedule.name),
        ...(job.schedule.job === null
          ? []
          : [" repeats ", h("a", { href: jobPath(job.schedule.job) }, job.schedule.job.slice(0, 13))]),
      ),
    );
  if (job.quorum !== undefined) facts.push(fact("quorum", quorumText(job.quorum)));
  if (job.locks !== undefined)
    facts.push(fact("locks", `${job.locks.names.map(plain).join(", ")}${job.locks.held ? " (held)" : ""}`));
  const changed = job.changes === undefined ? null : describeCounts(job.changes);
  if (changed !== null) facts.push(fact("changed", changed));
  if (job.step !== undefined)
    facts.push(fact("step of", h("a", { href: jobPath(job.step.parent) }, job.step.parent.slice(0, 13))));
  if (job.stepCount !== undefined)
    facts.push(
      fact(
        "steps",
        ...steps.map((step) => h("div", {}, pill(step.state), " ", h("a", { href: jobPath(step.id) }, nameOf(step)))),
      ),
    );
  if (startedAt !== null) facts.push(fact("started", clock(startedAt)));
  if (startedAt !== null && finishedAt !== null)
    facts.push(fact("took", duration(Date.parse(finishedAt) - Date.parse(startedAt))));
  return facts;
}

function quorumText({ agreeing, needed, voteCount, replicas, liveCount, openCount }: QuorumView): string {
  const more = [
    ...(liveCount > 0 ? [`${liveCount} run`] : []),
    ...(openCount > 0 ? [`${openCount} wait for another runner`] : []),
  ];
  return [`${agreeing} of ${needed} agree`, `${voteCount} of ${replicas} replicas have voted`, ...more].join(", ");
}

function drawProgress(text: HTMLElement, bar: HTMLProgressElement, { progress }: JobView, known: number): void {
  bar.hidden = progress === null || progress.total === 0;
  if (progress === null) return fill(text, `${known} known`);
  const { total, done, running, failed, cached, queued } = progress;
  bar.value = total === 0 ? 0 : done / total;
  const others = Object.entries({ running, failed, cached, queued }).filter(([, number]) => number > 0);
  const more = known > ROWS_MAX ? [`the first ${ROWS_MAX} are shown`] : [];
  fill(text, [`${done} of ${total} done`, ...others.map(([name, number]) => `${number} ${name}`), ...more].join(", "));
}

function drawDerivation(row: HTMLElement, derivation: Derivation): void {
  const { drv, name, state, phase, need, reason, startedAt, endedAt } = derivation;
  const doing = state === "building" ? (phase ?? "") : state === "planned" && need !== undefined ? `to ${need}` : "";
  const time = startedAt == null || endedAt == null ? "" : duration(Date.parse(endedAt) - Date.parse(startedAt));
  fill(
    row,
    h("td", { title: drv }, plain(name)),
    h("td", {}, pill(state)),
    h("td", {}, plain(reason ?? doing)),
    h("td", {}, time),
  );
}

function rank({ state }: Derivation): number {
  const index = ORDER.indexOf(state);
  return index === -1 ? ORDER.length : index;
}
