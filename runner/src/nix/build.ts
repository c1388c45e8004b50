import { join } from "node:path";
import { isFailure, type Derivation } from "./derivations.ts";
import { describeDerivations, planTargets } from "./describe.ts";
import { evaluate, type EvaluateRequest, type NixFailure, type NixTarget } from "./evaluate.ts";
import { createLineSplitter } from "./lines.ts";
import { describeOutputs, type BuiltOutput, type OutputPath } from "./outputs.ts";
import { NixLog, type NixOutput } from "./parser.ts";
import type { DerivationNode, Plan } from "./plan.ts";
import { captureOk, quietEnvironment, type NixContext, type NixExit } from "./run.ts";

/** What a build tells while it runs. */
export type NixBuildEvent =
  | NixOutput
  | { readonly kind: "phase"; readonly phase: "evaluating" | "building" }
  | { readonly kind: "plan"; readonly plan: Plan };

/** How derivations are realised. */
export interface RealiseOptions {
  /** Goes on with what does not depend on a failure, so that one run shows all of them. On unless given. */
  readonly keepGoing?: boolean;
  /** Longest time of one derivation. */
  readonly timeoutMs?: number;
  /** Longest time without output of one derivation. */
  readonly silenceMs?: number;
  /** Most bytes of log of one derivation. */
  readonly logLimitBytes?: number;
  /** Directory for links to the outputs, which keep them from being collected as garbage while they exist. */
  readonly rootsDirectory?: string;
}

/** The end of a build: what was asked for and what came of each derivation. */
export type NixBuildResult =
  | {
      readonly outcome: "succeeded";
      readonly targets: readonly NixTarget[];
      readonly derivations: readonly Derivation[];
      readonly outputs: readonly BuiltOutput[];
    }
  /** The evaluation gave exactly `unchangedDrvs`, so that nothing was built. */
  | { readonly outcome: "unchanged"; readonly targets: readonly NixTarget[]; readonly derivations: readonly [] }
  | { readonly outcome: "failed"; readonly failure: NixFailure; readonly derivations: readonly Derivation[] };

/** Everything that one build needs. */
export interface NixBuildRequest extends EvaluateRequest, RealiseOptions {
  /** Derivations of which an earlier success is known: when just these are asked for, nothing is built. */
  readonly unchangedDrvs?: ReadonlySet<string>;
}

/** Evaluates and builds. Refusals and failures are results; it throws only when Nix itself does not work as known. */
export async function buildInstallables(
  context: NixContext,
  request: NixBuildRequest,
  emit: (event: NixBuildEvent) => void,
): Promise<NixBuildResult> {
  emit({ kind: "phase", phase: "evaluating" });
  const evaluated = await evaluate(context, request, emit);
  if ("failure" in evaluated) return { outcome: "failed", failure: evaluated.failure, derivations: [] };
  const { targets } = evaluated;
  const { unchangedDrvs } = request;
  if (targets.length === unchangedDrvs?.size && targets.every(({ drv }) => unchangedDrvs.has(drv)))
    return { outcome: "unchanged", targets, derivations: [] };
  emit({ kind: "phase", phase: "building" });
  return realise(context, targets, request, emit);
}

/**
 * Builds derivations with `nix-store --realise`: unlike `nix build`, its exit code tells a failed build from a time-out.
 * Every state of {@link NixLog} is settled at the end. Aborting `context.signal` gives the failure `cancelled`.
 */
export async function realise(
  context: NixContext,
  targets: readonly NixTarget[],
  options: RealiseOptions,
  emit: (event: NixBuildEvent) => void,
): Promise<NixBuildResult> {
  const roots = targets.map(({ drv }) => drv);
  const plan = await planTargets(context, roots);
  if (isAborted(context)) return stopped([]);
  const asked = plan.nodes.filter(({ drv }) => roots.includes(drv));
  const unknown = asked.find(({ outputs }) => Object.values(outputs).includes(null));
  if (unknown !== undefined) {
    const failure = {
      code: "task-invalid",
      detail: `${unknown.name} is content-addressed, which is not supported`,
    } as const;
    return { outcome: "failed", failure: { ...failure, derivation: unknown.drv }, derivations: [] };
  }
  emit({ kind: "plan", plan });
  const log = new NixLog(plan);
  for (const output of log.begin()) emit(output);
  const exit = await stream(context, realiseCommand(roots, options), log, emit);
  // Questions to the store after the build are short, and a late cancel must not turn their answers into nonsense.
  const { signal: _, ...after } = context;
  const valid = exit.exitCode === 0 || isAborted(context) ? undefined : await validDerivations(after, log.unsettled());
  const end = { exitCode: exit.exitCode, atMs: Date.now(), ...(valid === undefined ? {} : { valid }) };
  for (const output of log.finish(end)) emit(output);
  const derivations = log.derivations();
  if (isAborted(context)) return stopped(derivations);
  if (exit.exitCode !== 0) return { outcome: "failed", failure: explain(exit, log, options), derivations };
  return {
    outcome: "succeeded",
    targets,
    derivations,
    outputs: await describeOutputs(after, asked.flatMap(outputsOf)),
  };
}

function realiseCommand(roots: readonly string[], options: RealiseOptions): string[] {
  const { keepGoing = true, timeoutMs, silenceMs, logLimitBytes, rootsDirectory } = options;
  return [
    "nix-store",
    "--realise",
    "--log-format",
    "internal-json",
    ...(keepGoing ? ["--keep-going"] : []),
    ...(timeoutMs === undefined ? [] : ["--option", "timeout", seconds(timeoutMs)]),
    ...(silenceMs === undefined ? [] : ["--option", "max-silent-time", seconds(silenceMs)]),
    ...(logLimitBytes === undefined ? [] : ["--option", "max-build-log-size", String(logLimitBytes)]),
    ...(rootsDirectory === undefined ? [] : ["--add-root", join(rootsDirectory, "result")]),
    ...roots,
  ];
}

async function stream(
  { run, cwd, env, signal }: NixContext,
  argv: readonly string[],
  log: NixLog,
  emit: (output: NixOutput) => void,
): Promise<NixExit> {
  const splitter = createLineSplitter();
  const read = (lines: readonly string[]): void => {
    for (const line of lines) for (const output of log.line(line, Date.now())) emit(output);
  };
  const exit = await run(argv, {
    cwd,
    env: quietEnvironment(env),
    ...(signal === undefined ? {} : { signal }),
    // The paths of the results, which the plan knows already.
    onStdout: () => {},
    onStderr: (chunk) => read(splitter.push(chunk)),
  });
  read(splitter.end());
  return exit;
}

/** Those of `drvs` whose outputs all exist. */
async function validDerivations(context: NixContext, drvs: readonly string[]): Promise<Set<string>> {
  const nodes = await describeDerivations(context, drvs);
  const paths = nodes.flatMap(({ outputs }) => Object.values(outputs).filter((path) => path !== null));
  if (paths.length === 0) return new Set();
  const { stdout } = await captureOk(context, ["nix-store", "--check-validity", "--print-invalid", ...paths]);
  const invalid = new Set(stdout.split("\n"));
  const isValid = ({ outputs }: DerivationNode): boolean =>
    Object.values(outputs).every((path) => path !== null && !invalid.has(path));
  return new Set(nodes.filter(isValid).map(({ drv }) => drv));
}

function outputsOf({ drv, outputs }: DerivationNode): OutputPath[] {
  return Object.entries(outputs).flatMap(([name, path]) => (path === null ? [] : [{ name, path, drvPath: drv }]));
}

/** The failure that came first, with the last lines of its log, and how many more there are. */
function explain({ exitCode, signal }: NixExit, log: NixLog, options: RealiseOptions): NixFailure {
  const first = log.firstFailure();
  const said = log.errors()[0] ?? `Nix ended with ${signal ?? `exit code ${exitCode}`}`;
  if (first === undefined) return { code: "build-failed", detail: said.slice(0, 2000) };
  const { derivation, lines } = first;
  const { drv, name, reason, state } = derivation;
  const failedCount = log.derivations().filter((one) => isFailure(one.state)).length;
  const more = failedCount === 1 ? "" : ` (and ${failedCount - 1} more not built)`;
  const detail = state === "lost" ? `${name}: ${reason}; ${said}`.slice(0, 2000) : `${name}: ${reason}${more}`;
  return { code: failureCode(derivation, options), detail, derivation: drv, lines };
}

function failureCode({ state, reason = "" }: Derivation, options: RealiseOptions): NixFailure["code"] {
  if (state === "hash-mismatch" || state === "not-deterministic" || state === "log-limit") return state;
  if (state !== "timeout") return "build-failed";
  // 2.34 words both time-outs alike, so that only the number of seconds tells them apart.
  const after = /after (\d+) seconds/.exec(reason)?.[1];
  const silence = options.silenceMs !== undefined && after === seconds(options.silenceMs);
  const wall = options.timeoutMs !== undefined && after === seconds(options.timeoutMs);
  return reason.includes("of silence") || (silence && !wall) ? "silence-timeout" : "run-timeout";
}

/** Nix's time-outs are whole seconds. */
function seconds(ms: number): string {
  return String(Math.ceil(ms / 1000));
}

function isAborted({ signal }: NixContext): boolean {
  return signal?.aborted === true;
}

function stopped(derivations: readonly Derivation[]): NixBuildResult {
  return { outcome: "failed", failure: { code: "cancelled", detail: "cancelled while building" }, derivations };
}
