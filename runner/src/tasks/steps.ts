import type { Task } from "@plumule/protocol";
import type { Step } from "../task-file.ts";
import { runShell } from "./shell.ts";
import { ended, type TaskContext, type TaskEnd } from "./task.ts";

// A supervisor that waits holds memory and one that starts is waited for: what only some tasks need is loaded when one does.
const loadTaskFile = () => import("../task-file.ts");
const loadNixBuild = () => import("./nix-build.ts");
const loadEffect = () => import("./effect.ts");
const loadPush = () => import("./push-outputs.ts");

/**
 * Loads what a task may need in any of its steps. At the beginning, because an update may replace the files of this program while a long run is
 * at work, and a process must not be of two versions.
 */
export async function loadTask({ kind }: Task): Promise<void> {
  if (kind === "shell") return;
  await Promise.all([loadTaskFile(), loadNixBuild(), loadPush(), ...(kind === "nix-build" ? [] : [loadEffect()])]);
}

/** Runs a job's task, and pushes what it has built where the runner's owner wants it. */
export async function runSteps(context: TaskContext, task: Task): Promise<TaskEnd> {
  const end = await runAll(context, task);
  return end.targets.length === 0 ? end : (await loadPush()).pushOutputs(context, end);
}

/** Itself, or the steps that its repository describes, in order, until one does not succeed. */
async function runAll(context: TaskContext, task: Task): Promise<TaskEnd> {
  if (task.kind !== "repository") return runStep(context, { name: task.kind, task });
  const { readRepositorySteps } = await loadTaskFile();
  const read = await readRepositorySteps(context.workspace.checkout, task.task);
  if ("refused" in read) {
    context.log(`[plumule] ${read.detail}\n`);
    return ended("failed", null, { code: read.refused, detail: read.detail });
  }
  context.log(`[plumule] ${read.found}: ${read.steps.map((step) => step.name).join(", ")}\n`);
  const [only] = read.steps;
  const isOneBuild = read.steps.length === 1 && (only?.task.kind === "nix-build" || only?.task.kind === "flake");
  if (context.lastSuccess !== undefined && !isOneBuild)
    context.log("[plumule] not compared with the last success: only a task that is one build can be\n");
  const { lastSuccess: _, ...alone } = context;
  const targets: TaskEnd["targets"] = [];
  for (const step of read.steps) {
    if (read.steps.length > 1) context.log(`[plumule] ${step.name}\n`);
    const end = await runStep(isOneBuild ? context : alone, step);
    targets.push(...end.targets);
    if (end.outcome !== "succeeded") return { ...end, targets: [] };
  }
  return { outcome: "succeeded", exitCode: 0, reason: null, targets };
}

async function runStep(context: TaskContext, { name, task }: Step): Promise<TaskEnd> {
  const fault = context.untrusted ? (await loadTaskFile()).strangersFault({ name, task }) : null;
  if (fault !== null) return ended("failed", null, { code: "task-invalid", detail: fault });
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
