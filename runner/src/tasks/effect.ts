import { LIMITS, type Phase, sha256Hex, type Task, utf8 } from "@plumule/protocol";
import { findEffect } from "../effects/derivation.ts";
import { createPhaseReader } from "../effects/phases.ts";
import { sandboxFault } from "../effects/sandbox.ts";
import { readSecretsMap } from "../effects/secrets.ts";
import { buildInstallables, realise } from "../nix/build.ts";
import { derivationName } from "../nix/plan.ts";
import type { ProcessResult } from "../process.ts";
import { effectCommand, openStage, type Prepared, scriptCommand, type Stage } from "./effect-stage.ts";
import { buildRequestOf, builtTargets, nixContextOf, nixFailed, reportNix } from "./nix-build.ts";
import { ended, orderOf, runTaskProcess, stopEnd, type TaskContext, type TaskEnd } from "./task.ts";

type EffectTask = Extract<Task, { kind: "effect" }>;

/**
 * Runs an effect: builds, makes its plan where it has one, and applies. It applies only after the broker has taken its word that it begins: until then
 * whoever replaces or cancels the job can be sure that nothing was changed, and from then on nobody begins it again.
 */
export async function runEffect(context: TaskContext, task: EffectTask): Promise<TaskEnd> {
  const { nix, isolation } = context.machine;
  const fault = nix === null ? "no Nix" : sandboxFault(isolation);
  if (nix === null || fault !== null)
    return ended("refused", null, { code: "refused", detail: `This runner runs no effects: ${fault}.` });
  const prepared = await prepare(context, task, nix);
  if ("end" in prepared) return context.stop.aborted ? stopEnd(orderOf(context.stop), null) : prepared.end;
  const map = prepared.effect === null ? { map: null } : readSecretsMap(prepared.effect.env);
  if ("refused" in map) return ended("failed", null, { code: "task-invalid", detail: map.refused });
  const stage = await openStage(context, map.map);
  if ("end" in stage) return stage.end;
  try {
    return await planAndApply(context, task, prepared, stage);
  } finally {
    stage.state.close();
    await context.secrets.close();
  }
}

/** Evaluates and builds: of an effect its inputs, with a script the installable itself. Nothing of it has secrets. */
async function prepare(
  context: TaskContext,
  { installable, script }: EffectTask,
  nix: NonNullable<TaskContext["machine"]["nix"]>,
): Promise<Prepared | { end: TaskEnd }> {
  const nixContext = nixContextOf(context);
  const request = buildRequestOf(context, nix);
  const emit = (event: Parameters<typeof reportNix>[1]): void => reportNix(context, event);
  if (script !== undefined) {
    const built = await buildInstallables(nixContext, { ...request, installables: [installable] }, emit);
    if (built.outcome === "failed") return { end: nixFailed(context, built.failure) };
    if (built.outcome === "unchanged") throw new Error("an effect was compared with its last success");
    return { effect: null, outputs: built.outputs.map(({ path }) => path), targets: builtTargets(built) };
  }
  emit({ kind: "phase", phase: "evaluating" });
  const found = await findEffect(nixContext, { ...request, installable, job: context.job }, emit);
  if ("failure" in found) return { end: nixFailed(context, found.failure) };
  if ("notWanted" in found) {
    context.log(`[plumule] ${found.notWanted}\n`);
    return { end: ended("skipped", null, { code: "nothing-to-do", detail: found.notWanted }) };
  }
  const { effect } = found;
  const inputs = effect.inputs.map((drv) => ({ drv, label: derivationName(drv) }));
  if (inputs.length > 0) {
    emit({ kind: "phase", phase: "building" });
    const built = await realise(nixContext, inputs, request, emit);
    if (built.outcome === "failed") return { end: nixFailed(context, built.failure) };
  }
  return { effect, outputs: [], targets: [] };
}

async function planAndApply(
  context: TaskContext,
  task: EffectTask,
  prepared: Prepared,
  stage: Stage,
): Promise<TaskEnd> {
  const { assignment, log, stop } = context;
  const own = assignment.spec.task;
  const approved = assignment.plan?.sha256;
  if (task.plan === undefined) return apply(context, task, prepared, stage);
  // Who approves a plan approves what the job does: one of several steps of a run has no plan of its own.
  const isWhole =
    own.kind === "effect" ? own.plan === task.plan : own.kind === "repository" && own.step?.planned === true;
  if (!isWhole)
    return ended("failed", null, { code: "task-invalid", detail: "Only a job that is one effect can have a plan." });
  const plan = await makePlan(context, task.plan, prepared, stage);
  if ("end" in plan) return plan.end;
  const made = { sha256: await sha256Hex(utf8(plan.text)), text: plan.text };
  if (stop.aborted) return stopEnd(orderOf(stop), null);
  if (approved === undefined) {
    log(`[plumule] plan ${made.sha256}: it is applied when somebody has approved exactly this\n`);
    return { ...ended("skipped", null, null), plan: made };
  }
  if (approved !== made.sha256) {
    const detail = `The plan has changed since it was approved: ${approved} was, this is ${made.sha256}. Nothing was applied.`;
    log(`[plumule] ${detail}\n`);
    return { ...ended("failed", null, { code: "rejected", detail }), plan: made };
  }
  log(`[plumule] plan ${made.sha256}: the approved one\n`);
  return { ...(await apply(context, task, prepared, stage)), plan: { sha256: made.sha256 } };
}

/** The standard output of the plan script, with secrets masked: what people read is what they approve. */
async function makePlan(
  context: TaskContext,
  script: string,
  prepared: Prepared,
  stage: Stage,
): Promise<{ text: string } | { end: TaskEnd }> {
  context.log("[plumule] planning\n");
  const chunks: Uint8Array[] = [];
  let size = 0;
  const command = scriptCommand(context, script, prepared, stage);
  const result = await runTaskProcess(context, command, {
    merged: false,
    onOutput: (chunk, stream) => {
      context.log(chunk);
      size += stream === "stdout" ? chunk.length : 0;
      if (stream === "stdout" && size <= LIMITS.planBytes) chunks.push(chunk);
    },
  });
  if (context.stop.aborted) return { end: stopEnd(orderOf(context.stop), result.exitCode) };
  if (result.reason !== "exit" || result.exitCode !== 0) return { end: failedEnd(context, result, "plan") };
  const text = context.secrets.text(Buffer.concat(chunks).toString()).toWellFormed();
  if (size <= LIMITS.planBytes && utf8(JSON.stringify(text)).length <= LIMITS.planBytes) return { text };
  const detail = `The plan has more than ${LIMITS.planBytes} bytes, which nobody would read: let the script tell it shorter.`;
  context.log(`[plumule] ${detail}\n`);
  return { end: ended("failed", null, { code: "task-invalid", detail }) };
}

async function apply(context: TaskContext, { script }: EffectTask, prepared: Prepared, stage: Stage): Promise<TaskEnd> {
  const { stop } = context;
  const command =
    prepared.effect === null
      ? scriptCommand(context, script ?? "", prepared, stage)
      : await effectCommand(context, prepared.effect, stage);
  const taken = await context.tell({ type: "phase", phase: "applying" satisfies Phase, at: new Date().toISOString() });
  if (!taken) return stopEnd(orderOf(stop), null);
  const phases = createPhaseReader(context.log);
  const result = await runTaskProcess(context, command, { merged: true, onOutput: (chunk) => phases.push(chunk) });
  phases.end();
  if (result.reason === "exit" && result.exitCode === 0)
    return { outcome: "succeeded", exitCode: 0, reason: null, targets: prepared.targets };
  return failedEnd(context, result, "effect");
}

function failedEnd(context: TaskContext, result: ProcessResult, what: "effect" | "plan"): TaskEnd {
  if (context.stop.aborted && result.reason !== "exit") return stopEnd(orderOf(context.stop), result.exitCode);
  switch (result.reason) {
    case "exit":
      return ended("failed", result.exitCode, {
        code: "effect-failed",
        detail: `The ${what} ended with ${result.signal ?? `exit code ${result.exitCode}`}.`,
      });
    case "not-started":
      // Nothing of it ran, but that it would was told: nobody is to begin it again without a person having looked.
      return ended("failed", null, {
        code: "setup-failed",
        detail: result.detail ?? "The sandbox could not be started.",
      });
    case "lost":
      return ended(what === "effect" ? "unknown" : "refused", null, {
        code: "runner-lost",
        detail: result.detail ?? "The end of the process could not be observed.",
      });
    case "cancelled":
    case "timeout":
    case "silence":
      return stopEnd(orderOf(context.stop), result.exitCode);
  }
}
