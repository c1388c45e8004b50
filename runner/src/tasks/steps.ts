import type { RepositoryStep, Task } from "@plumule/protocol";
import { loadTaskFileReading } from "../task-file/load.ts";
import type { RepositorySteps } from "../task-file/read.ts";
import type { Step } from "../task-file/steps.ts";
import { strangersFault } from "../task-file/strangers.ts";
import { runShell } from "./shell.ts";
import type { StepEnd } from "./step-ends.ts";
import { withStepTime } from "./step-time.ts";
import { ended, type TaskContext, type TaskEnd } from "./task.ts";

// A supervisor that waits holds memory and one that starts is waited for: what only some tasks need is loaded when one does.
const loadNixBuild = () => import("./nix-build.ts");
const loadEffect = () => import("./effect.ts");
const loadPush = () => import("./push-outputs.ts");
const loadExpansion = () => import("../task-file/expansion.ts");
const loadStepEnds = () => import("./step-ends.ts");

/**
 * Loads what a task may need in any of its steps. At the beginning, because an update may replace the files of this program while a long run is
 * at work, and a process must not be of two versions.
 */
export async function loadTask({ kind }: Task): Promise<void> {
  if (kind === "shell") return;
  await Promise.all([
    loadTaskFileReading(),
    loadNixBuild(),
    loadPush(),
    ...(kind === "nix-build" ? [] : [loadEffect(), loadStepEnds(), loadExpansion()]),
  ]);
}

/** Runs a job's task, and pushes what it has built where the runner's owner wants it. */
export async function runSteps(context: TaskContext, task: Task): Promise<TaskEnd> {
  const end = await runAll(context, task);
  return end.targets.length === 0 ? end : (await loadPush()).pushOutputs(context, task, end);
}

/** Itself, or the steps that its repository describes, in their order. A step that needs one which did not succeed is not run. */
async function runAll(context: TaskContext, task: Task): Promise<TaskEnd> {
  if (task.kind !== "repository") return runStep(context, { name: task.kind, task });
  const { readRepositorySteps } = await loadTaskFileReading();
  const { schedule } = task;
  const read = await readRepositorySteps(
    context.workspace.checkout,
    task.step === undefined ? { job: task.task, schedule } : { step: true },
  );
  if ("refused" in read) {
    context.log(`[plumule] ${read.detail}\n`);
    return ended("failed", null, { code: read.refused, detail: read.detail });
  }
  if (task.step !== undefined) return runAlone(context, read, task.step);
  const found = schedule === undefined ? read.found : `${read.found}, schedule ${schedule}`;
  context.log(`[plumule] ${found}: ${read.steps.map((step) => step.name).join(", ")}\n`);
  const end = await runRead(context, read);
  const isWell = end.outcome === "succeeded" || end.outcome === "skipped";
  const ref = context.assignment.spec.source?.ref;
  if (!isWell || (task.task ?? schedule) !== undefined || ref === undefined) return end;
  const { schedulesFor } = await import("@plumule/protocol");
  return { ...end, schedules: schedulesFor(read.schedules, ref) };
}

async function runRead(context: TaskContext, { steps, expansion }: RepositorySteps): Promise<TaskEnd> {
  if (expansion !== undefined && isLeaseless(context))
    return leftToBroker(context, "The task file asks for runners, locks, secrets or effects, which a broker has.");
  if (expansion !== undefined) return (await loadExpansion()).endOfReading(context, steps, expansion);
  const [only] = steps;
  if (only === undefined || steps.length > 1) return runEach(context, steps);
  const isOneBuild = only.task.kind === "nix-build" || only.task.kind === "flake";
  return runStep(isOneBuild ? context : notCompared(context), only);
}

/** The one step that this job of the lane is; the job that read the file saw to what it needs. */
async function runAlone(
  context: TaskContext,
  { found, steps }: RepositorySteps,
  wanted: RepositoryStep,
): Promise<TaskEnd> {
  const step = (await loadExpansion()).stepFor(context, steps, wanted);
  if ("refused" in step) {
    context.log(`[plumule] ${step.refused}\n`);
    return ended("failed", null, { code: "task-invalid", detail: step.refused });
  }
  context.log(`[plumule] ${found}: ${step.name}\n`);
  return runStep(step.task.kind === "nix-build" ? context : notCompared(context), step);
}

async function runEach(context: TaskContext, steps: readonly Step[]): Promise<TaskEnd> {
  const alone = notCompared(context);
  const ends: StepEnd[] = [];
  for (const step of steps) {
    const broken = step.needs?.find((need) =>
      ends.some(({ name, end }) => name === need && end?.outcome !== "succeeded"),
    );
    if (broken !== undefined) {
      context.log(`[plumule] ${step.name}: not run, because it needs ${broken}\n`);
      ends.push({ name: step.name, end: null });
      continue;
    }
    context.log(`[plumule] ${step.name}\n`);
    const end = await runStep(alone, step);
    context.log(`[plumule] ${step.name}: ${end.outcome}\n`);
    // Whoever stopped the run, and a machine that cannot do a step, mean the whole of it.
    if (context.stop.aborted || (end.outcome !== "succeeded" && end.outcome !== "failed"))
      return { ...end, targets: [] };
    ends.push({ name: step.name, end });
  }
  return (await loadStepEnds()).endOfSteps(ends);
}

/** Whether the runner gave itself this run. */
function isLeaseless({ assignment }: TaskContext): boolean {
  return assignment.epoch === 0;
}

/** Nothing was run: the work is done when there is a broker. */
function leftToBroker({ log }: TaskContext, detail: string): TaskEnd {
  log(`[plumule] ${detail}\n`);
  return ended("refused", null, { code: "refused", detail });
}

/** Without the last success: what it has built says nothing about scripts, and several builds are not told apart in it. */
function notCompared({ lastSuccess, ...context }: TaskContext): TaskContext {
  if (lastSuccess !== undefined)
    context.log("[plumule] not compared with the last success: only a task that is one build can be\n");
  return context;
}

/** In the environment that the step asks for, where whoever submitted the job did not say otherwise. */
async function runStep(context: TaskContext, step: Step): Promise<TaskEnd> {
  if (step.task.kind === "effect" && isLeaseless(context))
    return leftToBroker(context, "An effect is run under a lease alone, which a broker gives.");
  const fault = context.untrusted ? strangersFault(step) : null;
  if (fault !== null) return ended("failed", null, { code: "task-invalid", detail: fault });
  const env = { ...step.env, ...context.env, ...step.matrix };
  return withStepTime({ ...context, env }, step.timeouts ?? {}, (within) => runTask(within, step.task));
}

async function runTask(context: TaskContext, task: Step["task"]): Promise<TaskEnd> {
  switch (task.kind) {
    case "shell":
      return runShell(context, task);
    case "nix-build":
      return (await loadNixBuild()).runNixBuild(context, task.installables);
    case "flake":
      return (await loadNixBuild()).runNixBuild(context, null);
    case "effect":
      return (await loadEffect()).runEffect(context, task);
  }
}
