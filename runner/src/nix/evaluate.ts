import { CALL_WITH, jobArguments, type JobFacts } from "./arguments.ts";
import { type EvalJob, evalJobsAttribute, evaluateJobs, failureOfJobs } from "./eval-jobs.ts";
import {
  flakeReference,
  parseInstallable,
  type Installable,
  type NixSource,
  type ParsedInstallable,
} from "./installables.ts";
import { createLineSplitter } from "./lines.ts";
import { NixLog, type NixOutput } from "./parser.ts";
import { isDerivationPath } from "./plan.ts";
import { NEW_COMMANDS, capture, type NixContext } from "./run.ts";
import { EVALUATION_BYTES, evaluationEnvironment, type EvaluationTrust, untrustedSettings } from "./settings.ts";

/** A derivation that was asked for. */
export interface NixTarget {
  /** Full store path of the `.drv` file. */
  readonly drv: string;
  /** What it was asked for as, for instance `.#checks` with `x86_64-linux.unit` below it. */
  readonly label: string;
}

/** Why nothing came of a task. `derivation` is the store path of the first one that failed. */
export interface NixFailure {
  readonly code:
    | "task-invalid"
    | "nothing-to-do"
    | "evaluation-failed"
    | "build-failed"
    | "hash-mismatch"
    | "not-deterministic"
    | "log-limit"
    | "run-timeout"
    | "silence-timeout"
    | "cancelled";
  readonly detail: string;
  readonly derivation?: string;
  /** The last lines of that derivation's log, or what led to the error of an evaluation. */
  readonly lines?: readonly string[];
}

/** What to evaluate, and how far the code is trusted. */
export interface EvaluateRequest extends EvaluationTrust {
  readonly source: NixSource;
  /** Without installables: the checks of `system` and the default package of the checkout's flake. */
  readonly installables?: readonly Installable[];
  /** As Nix names it, for instance `x86_64-linux`. */
  readonly system: string;
  /** What an installable that is a function is called with. */
  readonly job?: JobFacts;
  /** Whether `nix-eval-jobs` is there, for sets of derivations. */
  readonly evalJobs?: boolean;
}

type Evaluated = { readonly targets: readonly NixTarget[] } | { readonly failure: NixFailure };

const MAX_DETAIL_CHARS = 2000;
/** Longest line of an evaluation, in which no builder speaks: an error comes with its whole trace in one. */
const EVALUATION_LINE_CHARS = 16 * 1024 * 1024;

/**
 * Evaluates installables to derivations. A set of derivations is expanded; a set with an attribute named like `system`
 * (`.#checks`) stands for that attribute. `emit` gets the log. An empty result is a failure: green when nothing ran would be a lie.
 */
export async function evaluate(
  context: NixContext,
  request: EvaluateRequest,
  emit: (output: NixOutput) => void,
): Promise<Evaluated> {
  if (!/^[a-z0-9_]+-[a-z0-9]+$/.test(request.system)) throw new Error(`${request.system} is no system of Nix`);
  const { source, installables } = request;
  if (installables === undefined) return evaluateDefaults(context, request, emit);
  const targets = new Map<string, NixTarget>();
  for (const installable of installables) {
    const parsed = parseInstallable(installable, source);
    if ("refused" in parsed) return { failure: { code: "task-invalid", detail: parsed.refused } };
    const found = await evaluateOne(context, request, parsed, emit);
    if ("failure" in found) return found;
    if (found.targets.length === 0) return nothing(`${parsed.label} holds no derivation for ${request.system}`);
    for (const target of found.targets) targets.set(target.drv, targets.get(target.drv) ?? target);
  }
  return targets.size === 0 ? nothing("the task names nothing to build") : { targets: [...targets.values()] };
}

async function evaluateDefaults(
  context: NixContext,
  request: EvaluateRequest,
  emit: (output: NixOutput) => void,
): Promise<Evaluated> {
  const { source, system } = request;
  const attributes = [`checks.${system}`, `packages.${system}.default`];
  const targets = new Map<string, NixTarget>();
  for (const attribute of attributes) {
    const reference = flakeReference(source);
    const parsed = { kind: "flake", label: `.#${attribute}`, reference, attribute } as const;
    const found = await evaluateOne(context, request, parsed, emit);
    if ("targets" in found)
      for (const target of found.targets) targets.set(target.drv, targets.get(target.drv) ?? target);
    // A flake without the attribute is no error here; everything else is.
    else if (!isMissing(found.failure, parsed.label)) return found;
  }
  if (targets.size > 0) return { targets: [...targets.values()] };
  return nothing(`the repository has no task file, and its flake has neither ${attributes.join(" nor ")}`);
}

async function evaluateOne(
  context: NixContext,
  request: EvaluateRequest,
  parsed: ParsedInstallable,
  emit: (output: NixOutput) => void,
): Promise<Evaluated> {
  const jobs = await evaluateSet(context, request, parsed, emit);
  if (context.signal?.aborted === true) return cancelled();
  if (jobs !== null) {
    const failure = failureOfJobs(parsed.label, jobs);
    return failure === null ? checked(targetsOf(parsed, jobs)) : { failure };
  }
  const argv =
    parsed.kind === "flake"
      ? flakeCommand(request, parsed, expandExpression(request.system, request.job))
      : fileCommand(request, parsed);
  const evaluated = await runEvaluation(context, request, parsed.label, argv, emit);
  if ("failure" in evaluated) return evaluated;
  return checked(readTargets(parsed, evaluated.stdout));
}

/** A set of derivations by `nix-eval-jobs`; null for what it does not evaluate, which is then Nix's own to do or to refuse. */
async function evaluateSet(
  context: NixContext,
  request: EvaluateRequest,
  parsed: ParsedInstallable,
  emit: (output: NixOutput) => void,
): Promise<readonly EvalJob[] | null> {
  if (parsed.kind === "file" || request.evalJobs !== true) return null;
  const set = evalJobsAttribute(parsed.attribute, request.system);
  return set === null ? null : evaluateJobs(context, { ...request, installable: `${parsed.reference}#${set}` }, emit);
}

function targetsOf({ label }: ParsedInstallable, jobs: readonly EvalJob[]): NixTarget[] {
  return jobs.flatMap((job) => ("drv" in job ? [{ drv: job.drv, label: [label, ...job.path].join(".") }] : []));
}

/** Any set may call itself a derivation and have a `drvPath` of its own, which must not become an option of a command. */
function checked(targets: readonly NixTarget[]): Evaluated {
  const forged = targets.find(({ drv }) => !isDerivationPath(drv));
  if (forged === undefined) return { targets };
  return { failure: { code: "evaluation-failed", detail: `${forged.label}: its drvPath names no derivation` } };
}

function cancelled(): { failure: NixFailure } {
  return { failure: { code: "cancelled", detail: "cancelled while evaluating" } };
}

/** Runs an evaluation, within its memory. Answers what it printed, or why it failed. */
export async function runEvaluation(
  context: NixContext,
  trust: EvaluationTrust,
  label: string,
  argv: readonly string[],
  emit: (output: NixOutput) => void,
): Promise<{ stdout: string } | { failure: NixFailure }> {
  const log = new NixLog();
  const splitter = createLineSplitter(EVALUATION_LINE_CHARS);
  const read = (lines: readonly string[]): void => {
    for (const line of lines) {
      for (const output of log.line(line, 0)) if (output.kind === "log") emit(output);
    }
  };
  const env = evaluationEnvironment(context.env, trust);
  const done = await capture({ ...context, env }, argv, { onStderr: (chunk) => read(splitter.push(chunk)) });
  read(splitter.end());
  if (context.signal?.aborted === true) return cancelled();
  if (done.exitCode === 0) return { stdout: done.stdout };
  if (done.stderr.includes("GC Warning: Out of Memory")) {
    const { evaluationBytes = EVALUATION_BYTES } = trust;
    const needs = `${label}: the evaluation needs more than ${Math.floor(evaluationBytes / 1024 ** 2)} MiB of memory`;
    return { failure: { code: "evaluation-failed", detail: needs } };
  }
  const errors = log.errors().join("\n") || `${argv[0]} ended with ${done.signal ?? `exit code ${done.exitCode}`}`;
  const detail = `${label}: ${errors}`.slice(0, MAX_DETAIL_CHARS);
  return { failure: { code: "evaluation-failed", detail, lines: log.trace() } };
}

/** The command that evaluates what a function of Nix makes of an attribute of a flake, as JSON. */
export function flakeCommand(
  trust: EvaluationTrust,
  { reference, attribute }: ParsedInstallable & { kind: "flake" },
  apply: string,
): string[] {
  const installable = attribute === "" ? reference : `${reference}#${attribute}`;
  const settings = [
    "--show-trace",
    ...untrustedSettings(trust),
    "--option",
    "pure-eval",
    "true",
    "--no-write-lock-file",
  ];
  return [
    "nix",
    ...NEW_COMMANDS,
    "eval",
    "--log-format",
    "internal-json",
    ...settings,
    "--json",
    "--apply",
    apply,
    installable,
  ];
}

function fileCommand(request: EvaluateRequest, { file, attribute }: ParsedInstallable & { kind: "file" }): string[] {
  // Restricted evaluation reads nothing but the store and the search path, hence the checkout has to be in it.
  const restricted = ["--option", "restrict-eval", "true", "-I", `checkout=${request.source.directory}`];
  const settings = ["--show-trace", ...untrustedSettings(request), ...restricted, "--log-format", "internal-json"];
  const { configuration = null } = request.job ?? {};
  if (configuration !== null)
    settings.push("-I", `configuration=${configuration.path}`, "--arg", "configuration", configuration.path);
  return ["nix-instantiate", ...settings, ...(attribute === "" ? [] : ["-A", attribute]), file];
}

/**
 * A function for `nix eval --apply` that lists the derivations of a value, or of what a function makes of the job. Attribute paths go to Nix as
 * arguments, and the job's own texts as strings. Nested sets need `recurseForDerivations`, as everywhere in Nix, or a set such as all of nixpkgs would be walked.
 */
function expandExpression(system: string, job: JobFacts | undefined): string {
  return `given: let
  root = (${CALL_WITH}) ${job === undefined ? "{ }" : jobArguments(job)} given;
  isDerivation = value: value.type or null == "derivation";
  walk = path: value:
    if isDerivation value then [ { path = builtins.concatStringsSep "." path; drv = value.drvPath; } ]
    else builtins.concatMap (name: enter (path ++ [ name ]) value.\${name}) (builtins.attrNames value);
  enter = path: value:
    if isDerivation value || value.recurseForDerivations or false then walk path value else [ ];
  here = if builtins.isAttrs root && !isDerivation root && root ? ${system} then root.${system} else root;
in if builtins.isAttrs here then walk [ ] here else throw "is neither a derivation nor a set of derivations"`;
}

function readTargets(parsed: ParsedInstallable, stdout: string): NixTarget[] {
  if (parsed.kind === "file") {
    const drvs = stdout.split("\n").filter((line) => line.startsWith("/"));
    // `path.drv!out` where an output other than the first was meant; all outputs are built anyway.
    return drvs.map((line) => ({ drv: line.replace(/!.*$/, ""), label: parsed.label }));
  }
  const found = JSON.parse(stdout) as readonly { path: string; drv: string }[];
  return found.map(({ path, drv }) => ({ drv, label: path === "" ? parsed.label : `${parsed.label}.${path}` }));
}

/** True for the error of `nix eval` about a flake without the attribute, as opposed to one thrown inside of it. */
function isMissing({ code, detail }: NixFailure, label: string): boolean {
  return (
    code === "evaluation-failed" &&
    /^flake '[^']+' does not provide attribute '/.test(detail.slice(`${label}: `.length))
  );
}

function nothing(detail: string): { failure: NixFailure } {
  return { failure: { code: "nothing-to-do", detail } };
}
