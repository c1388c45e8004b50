import type { Derivation, Output, Phase, Progress } from "@plumule/protocol";
import type { NixBuildEvent, NixBuildRequest, NixBuildResult } from "../nix/build.ts";
import { buildInstallables } from "../nix/build.ts";
import type { Derivation as NixDerivation } from "../nix/derivations.ts";
import type { NixFailure } from "../nix/evaluate.ts";
import type { BuiltOutput } from "../nix/outputs.ts";
import type { Plan, PlanNode } from "../nix/plan.ts";
import type { NixContext } from "../nix/run.ts";
import { type BuiltTarget, ended, orderOf, runTaskProcess, stopEnd, type TaskContext, type TaskEnd } from "./task.ts";

/**
 * Evaluates and realises installables, or without them the flake's checks and default package. Nix gets SIGINT first: it then ends its builders
 * itself, which a SIGKILL would leave behind.
 */
export async function runNixBuild(context: TaskContext, installables: readonly string[] | null): Promise<TaskEnd> {
  const { nix } = context.machine;
  if (nix === null) return ended("refused", null, { code: "setup-failed", detail: "This runner has no Nix." });
  const result = await buildInstallables(
    nixContextOf(context),
    {
      ...buildRequestOf(context, nix),
      ...(installables === null ? {} : { installables }),
      ...comparison(context),
    },
    (event) => reportNix(context, event),
  );
  if (context.stop.aborted) return stopEnd(orderOf(context.stop), null);
  if (result.outcome === "unchanged") {
    const what = result.targets.length === 1 ? "the same derivation" : `the same ${result.targets.length} derivations`;
    const detail = `Nothing has changed since job ${context.lastSuccess?.job}, the last success: ${what}.`;
    context.log(`[plumule] ${detail}\n`);
    return ended("skipped", null, { code: "unchanged", detail });
  }
  if (result.outcome === "failed") return nixFailed(context, result.failure);
  return { outcome: "succeeded", exitCode: 0, reason: null, targets: builtTargets(result) };
}

/** What every build of a task has in common. */
export function buildRequestOf(context: TaskContext, nix: NonNullable<TaskContext["machine"]["nix"]>): NixBuildRequest {
  return {
    source: {
      directory: context.workspace.checkout,
      kind: context.commit === null ? "files" : "git",
      ...(context.commit === null ? {} : { commit: context.commit }),
    },
    system: nix.system,
    job: context.job,
    silenceMs: context.silenceMs,
    evalJobs: nix.evalJobs === true,
    allowImportFromDerivation: nix.importFromDerivation === true && !context.untrusted,
    rootsDirectory: context.workspace.temporary,
  };
}

/** The end of a task of which Nix made nothing. */
export function nixFailed({ log }: TaskContext, { code, detail, derivation, lines = [] }: NixFailure): TaskEnd {
  log(`error: ${detail}\n`);
  return ended("failed", 1, {
    code,
    detail: detail.slice(0, 2_000),
    ...(derivation === undefined ? {} : { derivation: derivation.slice(0, 300) }),
    ...(lines.length === 0 ? {} : { lines: [...lines] }),
  });
}

/** What was built, attribute by attribute. */
export function builtTargets(result: Extract<NixBuildResult, { outcome: "succeeded" }>): BuiltTarget[] {
  const outputs = result.outputs.map(wireOutput);
  return result.targets.map((target) => ({
    attribute: target.label,
    drv: target.drv,
    outputs: outputs.filter((output) => output.drvPath === target.drv),
  }));
}

/** The derivations of which nothing is built again, when the job asks for that; what was found to compare with is said. */
function comparison({ lastSuccess, log }: TaskContext): { unchangedDrvs?: ReadonlySet<string> } {
  if (lastSuccess === undefined) return {};
  if (lastSuccess !== null) return { unchangedDrvs: new Set(lastSuccess.drvs) };
  log(
    "[plumule] built in any case: the deployment's last success, if there is one, was of another task or configuration\n",
  );
  return {};
}

/** Where and how Nix runs for a task. */
export function nixContextOf(context: TaskContext): NixContext {
  return {
    cwd: context.workspace.checkout,
    env: context.env,
    signal: context.stop,
    run: async (argv, options) => {
      const result = await runTaskProcess(context, argv, {
        env: options.env,
        cwd: options.cwd,
        merged: false,
        firstSignal: "SIGINT",
        ...(options.signal === undefined ? {} : { cancel: options.signal }),
        onOutput: (chunk, stream) => (stream === "stdout" ? options.onStdout(chunk) : options.onStderr(chunk)),
      });
      if (result.reason === "not-started") throw new Error(result.detail ?? `${argv[0]} could not be started`);
      return { exitCode: result.signal === null ? result.exitCode : null, signal: result.signal };
    },
  };
}

/** Tells what a build does. */
export function reportNix({ reporter, log }: TaskContext, event: NixBuildEvent): void {
  switch (event.kind) {
    case "phase":
      return reporter.phase(event.phase satisfies Phase);
    case "log":
      return log(`${event.text}\n`);
    case "progress":
      return reporter.progress({ ...event.progress } satisfies Progress);
    case "derivation":
      return reporter.derivations([wireDerivation(event.derivation)]);
    case "plan":
      log(`[plumule] ${planText(event.plan)}\n`);
      return reporter.plan(
        event.plan.nodes.map((node) => ({
          drv: node.drv,
          name: node.name,
          state: node.need === "cached" ? "cached" : "planned",
          need: node.need,
        })),
        event.plan.edges.map(([user, dependency]) => [user, dependency]),
      );
  }
}

/** The plan in a line: what will be built, what fetched, and what is there of all that these need. */
function planText({ nodes }: Plan): string {
  const count = (need: PlanNode["need"]): number => nodes.filter((node) => node.need === need).length;
  return `plan: ${count("build")} to build, ${count("fetch")} to fetch, ${count("cached")} there already`;
}

function wireDerivation({ startedAt, endedAt, ...derivation }: NixDerivation): Derivation {
  const { drv, name, state, need, phase, exitCode, reason } = derivation;
  const time = (at: number | undefined): string | null => (at === undefined ? null : new Date(at).toISOString());
  return {
    drv,
    name,
    state,
    ...(need === undefined ? {} : { need }),
    phase: phase ?? null,
    exitCode: exitCode ?? null,
    reason: reason?.slice(0, 2_000) ?? null,
    startedAt: time(startedAt),
    endedAt: time(endedAt),
  };
}

function wireOutput({ name, path, drvPath, narHash, narSize, references, signatures }: BuiltOutput): Output {
  return { name, path, drvPath, narHash, narSize, references: [...references], signatures: [...signatures] };
}
