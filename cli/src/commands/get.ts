import {
  describeChanges,
  type DeploymentSnapshot,
  getCommitRuns,
  getJob,
  getRun,
  type JobDetail,
  type JobView,
  type QuorumView,
  type Requires,
  type RunView,
  stepName,
  type Task,
} from "@plumule/protocol";
import { Command } from "commander";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure } from "../failure.ts";
import { matrixLines } from "../judging.ts";
import { agoOf, clockOf, detailLines, fit, limitsText, paint, paintState, shortKey, sizeOf } from "../print.ts";
import { resolveTarget } from "../resolve.ts";
import { inLine } from "../terminal-text.ts";
import { hintFor, lastLines, progressText, stepLines } from "../watch-render.ts";
import { jobTable } from "./ls.ts";
import { scheduleTable } from "./schedule.ts";

/** `plumule get`: everything about one thing. */
export function getCommand(): Command {
  return new Command("get")
    .summary("show a job, run, deployment or commit")
    .argument("[id]", "id, the unique beginning of one, deployment or commit", ".")
    .action(act(get));
}

async function get({ terminal, cwd, connect }: Context, id: string): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const { ns } = connection;
  const target = await resolveTarget(connection, id, cwd);
  if (isFailure(target)) return target;
  const show = (value: unknown, lines: string[], next: string): ExitCode => {
    if (terminal.json) terminal.data(value);
    else {
      for (const line of lines) terminal.out(line);
      terminal.note(paint.quiet(`→ ${next}`));
    }
    return EXIT.ok;
  };
  switch (target.kind) {
    case "job": {
      const answer = await connection.ask(getJob, { params: { ns, job: target.job } });
      return isFailure(answer)
        ? answer
        : show(answer.body, jobLines(answer.body, Date.now()), hintFor(answer.body.job));
    }
    case "run": {
      const answer = await connection.ask(getRun, { params: { ns, run: target.run } });
      return isFailure(answer) ? answer : show(answer.body, runLines(answer.body), `plumule logs ${target.run}`);
    }
    case "deployment": {
      const { snapshot, deployment } = target;
      return show(snapshot, deploymentLines(snapshot, Date.now()), `plumule watch ${inLine(deployment)}`);
    }
    case "commit": {
      const answer = await connection.ask(getCommitRuns, { params: { ns, commit: target.commit }, query: {} });
      if (isFailure(answer)) return answer;
      const jobs = [...new Map(answer.body.items.map(({ job }) => [job.id, job])).values()];
      const [newest] = jobs;
      if (newest !== undefined) return show(answer.body, jobTable(jobs, Date.now()), hintFor(newest));
      const what = `No job is about the commit ${target.commit.slice(0, 12)}`;
      return { exit: EXIT.notFound, what, next: "Submit one: `plumule submit --commit HEAD`." };
    }
  }
}

/** A job with its runs. */
export function jobLines(
  { job, spec, runs, steps = [], planText, verdict, equivocations = [] }: JobDetail,
  now: number,
): string[] {
  const head = `${paint.strong(job.id)}  ${paintState(job.state)}${job.state === "running" && job.phase !== null ? ` (${job.phase})` : ""}`;
  const { source } = job;
  const details = detailLines([
    ["deployment", inLine(job.deployment)],
    ["summary", job.summary === null ? null : inLine(job.summary)],
    ["task", taskText(spec.task)],
    ["commit", source === null ? null : `${source.commit}${source.ref === undefined ? "" : `  ${inLine(source.ref)}`}`],
    ["repository", source === null ? null : inLine(source.repository)],
    ["needs", needsText(spec.requires)],
    ["at most", limitsText(spec.limits)],
    ["quorum", quorumText(job.quorum)],
    [
      "locks",
      job.locks === undefined ? null : `${job.locks.names.map(inLine).join(", ")}${job.locks.held ? " (held)" : ""}`,
    ],
    ["mode", job.mode === "queue" ? null : `${job.mode}, interrupt ${job.interrupt}`],
    ["priority", job.priority === "normal" ? null : job.priority],
    [
      "by",
      job.standalone === true ? `${inLine(job.actor)}, which gave it to itself without the broker` : inLine(job.actor),
    ],
    ["submitted", `${job.createdAt}  ${paint.quiet(agoOf(job.createdAt, now))}`],
    ["took", tookText(job, now)],
    ["builds", job.progress === null ? null : progressText(job.progress)],
    ["waiting", job.waiting === null ? null : inLine(job.waiting.detail)],
    ["reason", job.reason === null ? null : `${job.reason.code}: ${inLine(job.reason.detail)}`],
    ["replaced by", job.supersededBy],
    ["rerun of", job.rerunOf],
    ["schedule", scheduleText(job)],
    ["step of", job.step === undefined ? null : job.step.parent],
    ["after", job.step === undefined || job.step.needs.length === 0 ? null : job.step.needs.map(inLine).join(", ")],
    ["secrets", spec.secrets === undefined ? null : spec.secrets.map(({ name }) => inLine(name)).join(", ")],
    ["plan", planLine(job)],
  ]);
  const shownPlan = planText === undefined ? [] : ["", ...indent(planText.trimEnd().split("\n").map(inLine))];
  const said = lastLines(job);
  const matrix = verdict == null ? [] : ["", `verdict  ${inLine(verdict.detail)}`, ...indent(matrixLines(verdict))];
  const caught = equivocations.map(
    ({ signer, about }) => `${paint.bad("✗")} ${shortKey(signer)} contradicts itself about ${inLine(about)}`,
  );
  return [
    head,
    ...indent(details),
    ...shownPlan,
    ...indent(said),
    ...matrix,
    ...caught,
    ...(steps.length === 0 ? [] : ["", ...stepLines(steps)]),
    ...runs.flatMap((run) => ["", ...runLines(run)]),
  ];
}

/** The schedule of a job, with the job that it repeats. */
function scheduleText({ schedule }: JobView): string | null {
  if (schedule === undefined) return null;
  return `${schedule.name}${schedule.job === null ? "" : `, repeats ${schedule.job}`}`;
}

/** The plan of an effect by its digest, with who has approved it. */
function planLine({ plan }: JobView): string | null {
  if (plan === undefined) return null;
  return `${plan.sha256}${plan.approvedBy === null ? "" : `  approved by ${inLine(plan.approvedBy)}`}`;
}

/** How many runners agree, of how many that have to. */
function quorumText(quorum: QuorumView | undefined): string | null {
  if (quorum === undefined) return null;
  const { verdict, agreeing, needed, voteCount, replicas, liveCount, openCount, distinct } = quorum;
  const rest = [
    `${voteCount} of ${replicas} replicas have voted`,
    ...(liveCount > 0 ? [`${liveCount} run`] : []),
    ...(openCount > 0 ? [`${openCount} wait for a different ${distinct === "operator" ? "operator" : "runner"}`] : []),
  ];
  return `${verdict}: ${agreeing} of ${needed} agree; ${rest.join(", ")}`;
}

/** How often each secret was masked in the log and elsewhere; null for a run without secrets. */
function maskedText(redactions: RunView["redactions"]): string | null {
  const counts = Object.entries(redactions ?? {}).map(([name, count]) => `${inLine(name)} ${count}×`);
  return counts.length === 0 ? null : counts.join(", ");
}

/** A run: where, how long, its log and its outputs. */
export function runLines(run: RunView): string[] {
  const { log, outputs } = run;
  const took =
    run.startedAt === null || run.finishedAt === null
      ? null
      : clockOf(Date.parse(run.finishedAt) - Date.parse(run.startedAt));
  const flagged =
    log.state === "mismatch"
      ? paint.bad("  does not match what was signed")
      : log.state === "complete"
        ? ""
        : `  ${log.state}`;
  const details = detailLines([
    ["runner", shortKey(run.runner) + (run.isolation === null ? "" : `, ${run.isolation}`)],
    ["took", took],
    ["exit code", run.exitCode === null ? null : String(run.exitCode)],
    ["reason", run.reason === null ? null : `${run.reason.code}: ${inLine(run.reason.detail)}`],
    [
      "killed",
      run.survivorsKilled === null || run.survivorsKilled === 0
        ? null
        : `${run.survivorsKilled} processes that outlived the signal`,
    ],
    ["masked", maskedText(run.redactions)],
    ["changed", run.changes === undefined ? null : describeChanges(run.changes, inLine)],
    ["log", `${sizeOf(log.bytes)}${flagged}`],
    [
      "signed",
      run.statementCount === 0
        ? null
        : `${run.statementCount} ${run.statementCount === 1 ? "statement" : "statements"}`,
    ],
    ...outputs.map(
      ({ name, path, narSize }) => [inLine(name), `${inLine(path)}  ${paint.quiet(sizeOf(narSize))}`] as const,
    ),
  ]);
  return [`run ${run.attempt}  ${paintState(run.state)}  ${paint.quiet(run.id)}`, ...indent(details)];
}

/** A deployment with its jobs. */
export function deploymentLines({ deployment, jobs }: DeploymentSnapshot, now: number): string[] {
  const { id, state, revision, pendingCount, currentJob, updatedAt } = deployment;
  const head = `${paint.strong(inLine(id))}  ${state}  ${paint.quiet(`r${revision}`)}`;
  const details = detailLines([
    ["live", currentJob],
    ["pending", String(pendingCount)],
    ["changed", `${updatedAt}  ${paint.quiet(agoOf(updatedAt, now))}`],
  ]);
  const schedules = deployment.schedules === undefined ? [] : ["", ...scheduleTable(deployment.schedules, now)];
  const newestFirst = jobs.toSorted((left, right) => (left.id < right.id ? 1 : -1));
  return [
    head,
    ...indent(details),
    ...schedules,
    ...(jobs.length === 0 ? [] : ["", ...jobTable(newestFirst.slice(0, 20), now)]),
  ];
}

/** A task in a few words. */
export function taskText(task: Task): string {
  switch (task.kind) {
    case "shell": {
      const [first = "", ...others] = task.script.trim().split("\n");
      return `shell: ${fit(inLine(first), 80)}${others.length > 0 ? " …" : ""}`;
    }
    case "nix-build":
      return `nix build ${inLine(task.installables.join(" "))}`;
    case "effect":
      return `effect ${inLine(task.installable)}${task.script === undefined ? "" : `, applied by ${fit(inLine(task.script.trim()), 60)}`}`;
    case "repository":
      if (task.step !== undefined)
        return `${inLine(stepName(task.step.job, task.step.matrix ?? {}))} of the repository (${task.step.kind})`;
      if (task.schedule !== undefined) return `what the repository says for ${inLine(task.schedule)}`;
      return task.task === undefined ? "what the repository says" : `${inLine(task.task)} of the repository`;
  }
}

/** What a job needs of a runner in a few words, or null. */
export function needsText(requires: Requires | null | undefined): string | null {
  if (requires == null) return null;
  const { systems = [], features = [], labels = [], isolation, pool } = requires;
  const parts = [
    systems.length === 0 ? "" : `system ${systems.join(", ")}`,
    features.length === 0 ? "" : `features ${features.join(", ")}`,
    labels.length === 0 ? "" : `labels ${labels.join(", ")}`,
    isolation === undefined ? "" : `isolation ${isolation}`,
    pool === undefined ? "" : `pool ${pool}`,
  ].filter((part) => part !== "");
  return parts.length === 0 ? null : inLine(parts.join("; "));
}

function tookText({ startedAt, finishedAt }: JobView, now: number): string | null {
  if (startedAt === null) return null;
  const ms = (finishedAt === null ? now : Date.parse(finishedAt)) - Date.parse(startedAt);
  return finishedAt === null ? `${clockOf(ms)} so far` : clockOf(ms);
}

function indent(lines: readonly string[]): string[] {
  return lines.map((line) => `  ${line}`);
}
