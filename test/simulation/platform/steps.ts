// In place of `runner/src/tasks/steps.ts`: a job that does what its submitter wrote into it, on the clock of the world.
export * from "../../../runner/src/tasks/steps.ts";
import { basename } from "node:path";
import { jobOfRun, type Task } from "@plumule/protocol";
import { pause } from "../../../runner/src/backoff.ts";
import { ended, orderOf, stopEnd, type TaskContext, type TaskEnd } from "../../../runner/src/tasks/task.ts";
import { planSchema, type Plan } from "../plan.ts";
import { currentContext } from "./clock.ts";
import { currentWorld } from "./globals.ts";
import type { Execution } from "./world.ts";

export async function loadTask(): Promise<void> {}

/** Does what the plan of a job says, and stops when it is told to. */
export async function runSteps(context: TaskContext, task: Task): Promise<TaskEnd> {
  if (task.kind !== "shell") return ended("refused", null, { code: "refused", detail: "nothing but a script" });
  const plan = planSchema.parse(JSON.parse(task.script));
  const execution = begin(basename(context.workspace.folder), context, plan);
  try {
    return await work(context, plan, execution);
  } finally {
    execution.endedAt = currentWorld().clock.now;
  }
}

function begin(run: string, context: TaskContext, plan: Plan): Execution {
  const world = currentWorld();
  const owner = currentContext()?.owner;
  if (owner === undefined) throw new Error("nobody works");
  const deployment = context.env["PLUMULE_DEPLOYMENT"] ?? "";
  if (world.executions.has(run)) world.violate("P1", `run ${run} was begun twice`);
  for (const other of world.executions.values()) {
    const isAtWork = other.owner.alive && other.endedAt === null && other.stoppedAt === null;
    const isReplica = plan.replicated === true && jobOfRun(other.run) === jobOfRun(run);
    if (other.deployment === deployment && isAtWork && !isReplica && !world.brokerClockJumped)
      world.violate("I1", `runs ${other.run} and ${run} of ${deployment} work at the same time`);
  }
  const execution: Execution = {
    run,
    deployment,
    owner,
    stoppedAt: null,
    endedAt: null,
    output: [],
    lostPower: false,
    unleasedAt: null,
  };
  world.executions.set(run, execution);
  world.note(`begin ${run} on ${owner.name}`);
  context.stop.addEventListener("abort", () => {
    execution.stoppedAt = world.clock.now;
  });
  return execution;
}

async function work(context: TaskContext, plan: Plan, execution: Execution): Promise<TaskEnd> {
  const log = (text: string): void => {
    const bytes = new TextEncoder().encode(text);
    context.log(bytes);
    execution.output.push(bytes);
  };
  for (const [index, step] of plan.steps.entries()) {
    if (step.phase !== undefined) context.reporter.phase(step.phase);
    await pause(step.ms, context.stop);
    if (context.stop.aborted) break;
    log(`${execution.run} ${index} ${"é".repeat(step.characters)}\n`);
    const done = index + 1;
    context.reporter.progress({ total: plan.steps.length, done, running: 0, failed: 0, cached: 0, queued: 0 });
  }
  if (!context.stop.aborted) return ended(plan.outcome, plan.outcome === "succeeded" ? 0 : 1, null);
  // It takes its time to stop, unless it is killed.
  await pause(plan.stopMs, context.kill);
  log("stopped\n");
  return stopEnd(orderOf(context.stop), null);
}
