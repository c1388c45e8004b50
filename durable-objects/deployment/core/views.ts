import {
  describeLockWait,
  formatTime,
  formatTimeOrNull,
  isFinalJobState,
  type DeploymentState,
  type DeploymentView,
  type JobView,
  type Millis,
  type Output as BuildOutput,
  type PlanView,
  type RunChanges,
  type RunView,
  type ScheduleView,
  type StepView,
  type StrangerView,
  type Waiting,
} from "@plumule/protocol";
import { lacksLocks, lockWaitOf } from "./locks.ts";
import {
  isOccupying,
  type Job,
  type Lane,
  leadRun,
  type Output,
  occupant,
  type PlanRecord,
  type Run,
  type Schedule,
  type State,
  type StepRecord,
} from "./model.ts";
import { isBefore, needAmong, nextInLine } from "./turns.ts";
import { openCount, quorumView } from "./replicas.ts";

/** What is live and what is going on: a teardown outranks work, work outranks what is live. */
function deploymentState({ lane, jobs }: State): DeploymentState {
  if (lane.removedAt === null && (lane.removing || jobs.some((job) => job.teardown))) return "destroying";
  if (jobs.length > 0) return "deploying";
  return lane.currentJob === null || lane.removedAt !== null ? "idle" : "active";
}

/** The deployment as answers and events show it. */
export function deploymentView(state: State): DeploymentView {
  const { lane, jobs } = state;
  return {
    id: lane.deployment,
    namespace: lane.namespace,
    state: deploymentState(state),
    revision: lane.revision,
    activeJob: occupant(jobs)?.id ?? null,
    currentJob: lane.currentJob,
    pendingCount: jobs.filter((job) => !isOccupying(job)).length,
    lastResult: lane.lastResult === null ? null : { ...lane.lastResult, at: formatTime(lane.lastResult.at) },
    createdAt: formatTime(lane.createdAt ?? lane.updatedAt),
    updatedAt: formatTime(lane.updatedAt),
    ...(lane.schedules.length === 0 ? {} : { schedules: lane.schedules.map(scheduleView) }),
  };
}

function scheduleView({ name, cron, ref, job, dueAt, last }: Schedule): ScheduleView {
  return {
    name,
    cron,
    ref,
    job,
    nextAt: formatTimeOrNull(dueAt),
    last: last === null ? null : { ...last, at: formatTime(last.at) },
  };
}

/** A job as answers and events show it. */
export function jobView({ lane, jobs }: State, job: Job, now: Millis): JobView {
  const { brief } = job;
  const run = leadRun(job);
  return {
    id: job.id,
    namespace: lane.namespace,
    deployment: lane.deployment,
    state: job.state,
    phase: job.phase,
    kind: brief.kind,
    type: brief.type ?? null,
    mode: brief.mode ?? "queue",
    interrupt: brief.interrupt ?? "before-apply",
    priority: brief.priority ?? "normal",
    teardown: job.teardown,
    summary: brief.summary ?? null,
    labels: brief.labels ?? {},
    source: brief.source ?? null,
    actor: job.actor,
    createdAt: formatTime(job.createdAt),
    startedAt: formatTimeOrNull(job.startedAt),
    finishedAt: formatTimeOrNull(job.finishedAt),
    attempt: job.runs.length,
    run: run?.id ?? null,
    runner: run?.runner ?? null,
    reason: job.reason,
    supersededBy: job.supersededBy,
    rerunOf: job.rerunOf,
    waiting: waitingOf(jobs, job, now),
    progress: job.progress,
    ...quorumView(job),
    ...(brief.locks === undefined ? {} : { locks: { names: [...brief.locks], held: job.locks?.heldAt != null } }),
    ...(job.standalone === true ? { standalone: true } : {}),
    ...(job.plan === undefined ? {} : { plan: planView(job.plan) }),
    ...(run?.changes === undefined ? {} : { changes: countsOf(run.changes) }),
    ...(brief.schedule === undefined ? {} : { schedule: { name: brief.schedule, job: job.scheduledBy ?? null } }),
    ...(job.step === undefined ? {} : { step: stepView(job.step) }),
    ...(job.steps === undefined ? {} : { stepCount: job.steps.length }),
    ...(brief.stranger === undefined ? {} : { stranger: strangerView(brief.stranger) }),
  };
}

function countsOf({ addedCount, modifiedCount, deletedCount }: RunChanges): JobView["changes"] {
  return { addedCount, modifiedCount, deletedCount };
}

function stepView({ parent, name, needs }: StepRecord): StepView {
  return { parent, name, needs: [...needs] };
}

function planView({ sha256, run, approved }: PlanRecord): PlanView {
  return {
    sha256,
    run,
    approvedBy: approved?.actor ?? null,
    approvedAt: formatTimeOrNull(approved?.at ?? null),
  };
}

function strangerView({ author, approvers, approved }: NonNullable<Job["brief"]["stranger"]>): StrangerView {
  return {
    author,
    approvers: [...approvers],
    approvedBy: approved?.approver ?? null,
    approvedAt: formatTimeOrNull(approved?.at ?? null),
  };
}

/** A run as answers and events show it. `output` is what it has logged so far, for a run whose log is open. */
export function runView(
  lane: Lane,
  job: Job,
  run: Run,
  output: Output | null,
  outputs: readonly BuildOutput[],
): RunView {
  return {
    id: run.id,
    job: job.id,
    deployment: lane.deployment,
    attempt: run.attempt,
    epoch: Math.max(run.epoch, 0),
    state: run.state,
    phase: run.phase,
    runner: run.runner,
    isolation: run.isolation,
    assignedAt: formatTime(run.assignedAt),
    startedAt: formatTimeOrNull(run.startedAt),
    finishedAt: formatTimeOrNull(run.finishedAt),
    exitCode: run.exitCode,
    reason: run.reason,
    survivorsKilled: run.survivorsKilled,
    ...(run.redactions === undefined ? {} : { redactions: run.redactions }),
    ...(run.changes === undefined ? {} : { changes: run.changes }),
    log: run.log.state === "open" ? { ...run.log, bytes: output?.bytes ?? 0 } : run.log,
    outputs: [...outputs],
    statementCount: run.statementCount,
  };
}

/**
 * Why a job has not started. The lane's reasons are decided here: approval, debounce, backoff, its place behind others, locks. Then the head's
 * reason is what its pool last said. `position` counts the jobs before it that are not final.
 */
export function waitingOf(jobs: readonly Job[], job: Job, now: Millis): Waiting | null {
  const open = openCount(job);
  if (isOccupying(job) && open > 0) return waitingReplicas(job, open, now);
  if (job.state !== "held" && job.state !== "queued") return null;
  const held = jobs.filter((other) => other.state === "held");
  const isAhead = (other: Job): boolean =>
    isBefore(other, job) && other.state !== "held" && needAmong(held, other) === undefined;
  const ahead = jobs.filter(isAhead);
  const waiting = { needs: job.brief.requires ?? null, nearest: null, position: ahead.length, etaMs: null };
  if (job.state === "held") return { ...waiting, reason: "approval", detail: whyHeld(job) };
  const [first] = ahead;
  if (first !== undefined) {
    if (ahead.length === 1 && first.state === "cancelling")
      return { ...waiting, reason: "stopping-previous", detail: `Job ${first.id} is being stopped.` };
    const others =
      ahead.length === 1 ? "1 job of this deployment comes" : `${ahead.length} jobs of this deployment come`;
    return { ...waiting, reason: "position", detail: `${others} first.${whyNext(jobs)}` };
  }
  const need = needAmong(held, job);
  if (need !== undefined)
    return { ...waiting, reason: "position", detail: `It needs \`${need.step?.name}\`: job ${need.id} is held.` };
  // An approved job may stand before the one that is running.
  const running = occupant(jobs);
  if (running !== null) return { ...waiting, reason: "position", position: 1, detail: `Job ${running.id} is running.` };
  if (job.ready !== null && job.ready.at > now)
    return {
      ...waiting,
      reason: job.ready.reason,
      etaMs: job.ready.at - now,
      detail:
        job.ready.reason === "debounce" ? "Waiting for further submits to settle." : "Waiting before the next attempt.",
    };
  if (lacksLocks(job)) {
    const lock = lockWaitOf(job);
    return { ...waiting, reason: "position", position: lock.ahead, lock, detail: describeLockWait(lock) };
  }
  return job.waiting ?? { ...waiting, reason: "no-runner", detail: "Being offered to the runners of its pool." };
}

/** Whose turn it is in a lane where nothing runs, and what its pool last said of why that waits: it is what all others wait for. */
function whyNext(jobs: readonly Job[]): string {
  const next = occupant(jobs) === null ? nextInLine(jobs) : null;
  if (next?.waiting == null) return "";
  const name = next.step === undefined ? "" : ` (\`${next.step.name}\`)`;
  return ` Next is job ${next.id}${name}: ${next.waiting.detail}`;
}

function whyHeld({ id, plan, brief: { stranger, source } }: Job): string {
  if (plan !== undefined)
    return `A person has to approve the plan ${plan.sha256.slice(0, 12)}…: plumule get ${id} shows it.`;
  if (stranger === undefined) return "A person has to approve this job.";
  return `${stranger.why}: a delegate has to approve commit ${source?.commit.slice(0, 7) ?? "none"} with a Radicle key.`;
}

/** Why a job that has begun lacks replicas: how many, and what its pool says of the runners that could be next. */
function waitingReplicas(job: Job, open: number, now: Millis): Waiting {
  const needs = `Needs ${open} more different runner${open === 1 ? "" : "s"}.`;
  const waiting = { needs: job.brief.requires ?? null, nearest: null, position: 0, etaMs: null };
  if (job.ready !== null && job.ready.at > now)
    return {
      ...waiting,
      reason: "backoff",
      etaMs: job.ready.at - now,
      detail: `${needs} Waiting before the next attempt.`,
    };
  if (job.waiting !== null) return { ...job.waiting, detail: `${needs} ${job.waiting.detail}` };
  return { ...waiting, reason: "no-runner", detail: `${needs} Being offered to the runners of its pool.` };
}

/** Characters of outputs that an event carries; a longer list is read from the run. */
const EVENT_OUTPUT_CHARACTERS = 32 * 1024;

/** The outputs as an event carries them: all, or none when they would make the event large. */
export function outputsForEvent(outputs: readonly BuildOutput[]): readonly BuildOutput[] {
  return JSON.stringify(outputs).length <= EVENT_OUTPUT_CHARACTERS ? outputs : [];
}

/** True when nothing more happens to the job by itself. */
export function isFinal(job: Job): boolean {
  return isFinalJobState(job.state);
}
