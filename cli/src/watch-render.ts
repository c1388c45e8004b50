import {
  type Derivation,
  type Event,
  isFinalJobState,
  type JobDetail,
  type JobView,
  type Progress,
  type RunnerId,
  wholeState,
  type WatchState,
} from "@plumule/protocol";
import { becameText, clockOf, fit, paint, paintState, shortId, shortKey, tableLines, width } from "./print.ts";
import { inLine } from "./terminal-text.ts";

/** Names of runners by id, as far as they are known: people know machines by name. */
export type RunnerNames = ReadonlyMap<RunnerId, string>;

/** The size of a screen, in characters. */
export type Screen = { columns: number; rows: number };

/** Derivations that are shown as they are built, at most; the rest is counted. */
const DERIVATIONS_SHOWN = 8;

/** A change as a line for people, without time: nothing for changes that are only of interest while they happen (progress). */
export function changeLine({ type, data }: Pick<Event, "type" | "data">, names: RunnerNames): string | null {
  const { job, run } = data;
  if (job === undefined) return null;
  const line = (what: string, detail = ""): string =>
    `${paint.quiet(shortId(job.id))}  ${what}${" ".repeat(Math.max(1, 11 - width(what)))}${named(job)}${detail}`.trimEnd();
  switch (type) {
    case "job.held":
    case "job.queued":
      return line(paintState(job.state), job.waiting === null ? "" : inLine(job.waiting.detail));
    case "job.waiting":
      return job.waiting === null ? null : line(paint.quiet("waiting"), inLine(job.waiting.detail));
    case "job.assigned":
      return line(paint.busy("assigned"), runnerName(job.runner, names));
    case "job.phase":
      return job.phase === null ? null : line(paint.busy(job.phase), progressText(job.progress));
    case "job.cancelling":
      return line(paintState("cancelling"), reasonText(job));
    case "run.assigned":
      return line(paint.busy("replica"), runnerName(run?.runner ?? null, names));
    case "job.verdict":
      return line(paint.care(data.verdict?.verdict ?? "verdict"), inLine(data.verdict?.detail ?? ""));
    case "run.lost":
      return line(
        paint.bad("lost"),
        `${runnerName(run?.runner ?? null, names)} was not heard of; attempt ${job.attempt} ended`,
      );
    case "job.succeeded":
    case "job.failed":
    case "job.cancelled":
    case "job.superseded":
    case "job.skipped":
    case "job.unknown":
      return endLine(job);
    default:
      return null;
  }
}

/** How a job ended: state, how long it ran, why, and what took its place. */
export function endLine(job: JobView): string {
  const mark =
    job.state === "succeeded"
      ? paint.good("✓")
      : job.state === "failed" || job.state === "unknown"
        ? paint.bad("✗")
        : "•";
  const ran =
    job.startedAt === null || job.finishedAt === null
      ? []
      : [clockOf(Date.parse(job.finishedAt) - Date.parse(job.startedAt))];
  const by = job.supersededBy === null ? [] : [`by ${shortId(job.supersededBy)}`];
  const built = job.progress === null ? [] : [progressText(job.progress)];
  const why = job.supersededBy === null ? reasonText(job) : "";
  const became = job.stepCount === undefined ? [] : [becameText(job.stepCount)];
  const rest = [...ran, ...by, ...built, ...became, why].filter((part) => part !== "");
  return `${paint.quiet(shortId(job.id))}  ${mark} ${paintState(job.state)}  ${named(job)}${rest.join("  ")}`.trimEnd();
}

/** Which step of a task file a job is, before what is said of it. */
function named({ step }: JobView): string {
  return step === undefined ? "" : `${inLine(step.name)}  `;
}

/** The jobs that a task file became, a line each. */
export function stepLines(steps: NonNullable<JobDetail["steps"]>): string[] {
  const rows = steps.map(({ id, name, state, reason }) => [
    paint.quiet(shortId(id)),
    paintState(state),
    inLine(name),
    fit(inLine(reason?.detail ?? ""), DETAIL_COLUMNS),
  ]);
  return rows.length === 0 ? [] : tableLines(["JOB", "STATE", "STEP", ""], rows);
}

/** Places that the reason of a step gets; `plumule why` tells the rest. */
const DETAIL_COLUMNS = 80;

/** What the log of a job that ended badly said last, of the derivation that failed first, or what led to the error of an evaluation. */
export function lastLines({ reason }: Pick<JobView, "reason">): string[] {
  const { derivation, lines = [] } = reason ?? {};
  if (lines.length === 0) return [];
  const of = derivation === undefined ? "where it went wrong" : `last lines of ${inLine(storeName(derivation))}`;
  return [paint.quiet(`${of}:`), ...lines.map((line) => `  ${inLine(line)}`)];
}

/** The name of a derivation in its store path, without the hash. */
function storeName(drv: string): string {
  return drv.replace(/^.*\/(?:[0-9a-z]{32}-)?/, "").replace(/\.drv$/, "");
}

/** Derivations of an event that ended, as lines: what was built and how long it took (unless `onlyFailed`), and what failed. */
export function derivationLines({ data }: Event, { onlyFailed }: { onlyFailed: boolean }): string[] {
  const { job, derivations = [] } = data;
  if (job === undefined) return [];
  const told = onlyFailed ? derivations.filter(({ state }) => FAILED.has(state)) : derivations;
  return told.flatMap((derivation) => {
    const text = endedText(derivation);
    return text === null ? [] : [`${paint.quiet(shortId(job.id))}  ${text}`];
  });
}

/** The next command for a job together with the jobs that its task file became: that for the step which decided how it ended. */
export function hintForWhole(job: JobView, steps: NonNullable<JobDetail["steps"]>): string {
  const state = wholeState(job, steps);
  const decisive = job.state === "succeeded" ? steps.find((step) => step.state === state) : undefined;
  return decisive === undefined || state === "succeeded" ? hintFor(job) : `plumule why ${shortId(decisive.id)}`;
}

/** The next command for a job that ended badly. */
export function hintFor(job: JobView): string {
  switch (job.state) {
    case "succeeded":
      return `plumule verify ${shortId(job.id)}`;
    case "superseded":
      return `plumule watch ${shortId(job.supersededBy ?? job.deployment)}`;
    case "unknown":
      return `plumule resolve ${shortId(job.id)} succeeded|failed|cancelled`;
    case "failed":
      return `plumule why ${shortId(job.id)}`;
    case "held":
      return `plumule approve ${shortId(job.id)}${job.plan === undefined ? "" : ` --plan ${job.plan.sha256}`}`;
    case "queued":
    case "assigned":
    case "running":
    case "cancelling":
      return `plumule watch ${shortId(job.id)}`;
    case "cancelled":
    case "skipped":
      return `plumule rerun ${shortId(job.id)}`;
  }
}

/**
 * What a screen shows of a job that goes on: one line with its phase, counters, runner and clock, and the derivations that are being
 * built. Each line fits the screen, since a line that wraps could not be painted over.
 */
export function jobBlock(
  { state, job: id, names, now }: { state: WatchState; job: string; names: RunnerNames; now: number },
  { columns, rows }: Screen,
): string[] {
  const job = state.jobs[id];
  if (job === undefined || isFinalJobState(job.state)) return [];
  const lines = [headLine(job, state, names, now)];
  const derivations = Object.values(state.derivations[id] ?? {});
  const active = derivations.filter((one) => ["building", "waiting", "substituting"].includes(one.state));
  active.sort((left, right) => ((left.startedAt ?? "") < (right.startedAt ?? "") ? -1 : 1));
  const failed = derivations.filter((one) => FAILED.has(one.state));
  const room = Math.max(1, Math.min(DERIVATIONS_SHOWN, rows - 4));
  const shown = [...failed.slice(0, 3), ...active].slice(0, room);
  const longest = Math.min(40, Math.max(0, ...shown.map((one) => width(inLine(one.name)))));
  for (const one of shown) lines.push(derivationLine(one, longest, now));
  const more = active.length + Math.min(3, failed.length) - shown.length;
  if (more > 0) lines.push(paint.quiet(`    and ${more} more`));
  return lines.map((line) => fit(line, columns - 1));
}

function headLine(job: JobView, { phase, deployment }: WatchState, names: RunnerNames, now: number): string {
  const name = paint.strong(inLine(job.deployment));
  const revision = deployment === null ? "" : paint.quiet(` r${deployment.revision}`);
  const doing = job.state === "running" && job.phase !== null ? job.phase : job.state;
  const since = Date.parse(job.startedAt ?? job.createdAt);
  const parts = [
    `${name}${revision}`,
    paintState(job.state, doing),
    job.waiting === null ? progressText(job.progress) : inLine(job.waiting.detail),
    job.runner === null ? "" : runnerName(job.runner, names),
    clockOf(now - since),
    job.waiting?.etaMs == null ? "" : `eta ${clockOf(job.waiting.etaMs)}`,
    phase === "offline" || phase === "connecting" ? paint.care("reconnecting…") : "",
  ];
  return parts.filter((part) => part !== "").join("  ");
}

function derivationLine(derivation: Derivation, longest: number, now: number): string {
  const name = inLine(derivation.name).slice(0, longest).padEnd(longest);
  if (FAILED.has(derivation.state))
    return `  ${paint.bad("✗")} ${name}  ${paint.bad(derivation.state)}${tookText(derivation, " after ")}`;
  const doing = inLine(derivation.phase ?? derivation.state);
  const clock = derivation.startedAt == null ? "" : clockOf(now - Date.parse(derivation.startedAt));
  return `  ${paint.busy("▸")} ${name}  ${doing.padEnd(14)} ${clock}`;
}

const FAILED = new Set<Derivation["state"]>(["failed", "timeout", "log-limit", "hash-mismatch", "not-deterministic"]);

function endedText(derivation: Derivation): string | null {
  const name = inLine(derivation.name);
  if (FAILED.has(derivation.state)) {
    const reason = derivation.reason == null ? "" : `  ${inLine(derivation.reason)}`;
    return `${paint.bad(derivation.state)}${" ".repeat(Math.max(1, 11 - derivation.state.length))}${name}${tookText(derivation, "  ")}${reason}`;
  }
  return derivation.state === "built" ? `${paint.good("built")}      ${name}${tookText(derivation, "  ")}` : null;
}

function tookText({ startedAt, endedAt }: Derivation, before: string): string {
  return startedAt == null || endedAt == null ? "" : `${before}${clockOf(Date.parse(endedAt) - Date.parse(startedAt))}`;
}

/** What was there already is not counted as work, so that the numbers show what is left to do. */
export function progressText(progress: Progress | null): string {
  if (progress === null || progress.total === 0) return "";
  const { done, total, cached, failed } = progress;
  const parts = [
    total === cached ? "" : `${done - cached}/${total - cached}`,
    cached > 0 ? paint.quiet(`${cached} cached`) : "",
    failed > 0 ? paint.bad(`${failed} failed`) : "",
  ];
  return parts.filter((part) => part !== "").join("  ");
}

function reasonText({ reason }: JobView): string {
  return reason === null ? "" : inLine(reason.detail === "" ? reason.code : reason.detail);
}

function runnerName(runner: RunnerId | null, names: RunnerNames): string {
  return runner === null ? "" : inLine(names.get(runner) ?? shortKey(runner));
}
