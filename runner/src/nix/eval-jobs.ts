import { availableParallelism } from "node:os";
import { LIMITS } from "@plumule/protocol";
import { findExecutable } from "../executable.ts";
import type { NixFailure } from "./evaluate.ts";
import { createLineSplitter } from "./lines.ts";
import { NixLog, type NixOutput } from "./parser.ts";
import { derivationName, isDerivationPath } from "./plan.ts";
import { capture, NEW_COMMANDS, type NixContext } from "./run.ts";
import { EVALUATION_BYTES, evaluationEnvironment, type EvaluationTrust, untrustedSettings } from "./settings.ts";

/** What `nix-eval-jobs` says of one attribute, in a line of JSON: its derivation, or why it has none. */
export type EvalJob = { readonly path: readonly string[] } & ({ readonly drv: string } | { readonly error: string });

/** Sets of a flake that have one set of derivations per system. */
const SETS_BY_SYSTEM: readonly string[] = ["checks", "packages", "devShells"];
/** Least memory of a worker, bytes: with less, what the attributes share is evaluated over and over. Together they get that of one evaluation. */
const WORKER_BYTES = 2 * 1024 ** 3;
/** Longest line: an error comes with its whole trace. */
const LINE_CHARS = 16 * 1024 * 1024;

/** Whether `nix-eval-jobs` is in the PATH and starts. */
export async function hasEvalJobs(context: NixContext): Promise<boolean> {
  if (findExecutable("nix-eval-jobs", context.env["PATH"] ?? "", context.cwd) === null) return false;
  const asked = await capture(context, ["nix-eval-jobs", "--help"]).catch(() => null);
  return asked?.exitCode === 0;
}

/**
 * The attribute that `nix-eval-jobs` is to walk for an installable, or null where that is Nix's own to find: it has no short names such as
 * `.#hello`, and for a single derivation it would bring nothing.
 */
export function evalJobsAttribute(attribute: string, system: string): string | null {
  const [set = "", ...rest] = attribute.split(".");
  if (attribute === "hydraJobs") return attribute;
  if (!SETS_BY_SYSTEM.includes(set)) return null;
  return rest.length === 0 || (rest.length === 1 && rest[0] === system) ? `${set}.${system}` : null;
}

/** Reads a line of its output (https://github.com/nix-community/nix-eval-jobs); null for what is none. */
export function readEvalJob(line: string): EvalJob | null {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return null;
  }
  if (typeof value !== "object" || value === null) return null;
  const { attrPath, drvPath, error } = value as Record<string, unknown>;
  if (!Array.isArray(attrPath) || !attrPath.every((part) => typeof part === "string")) return null;
  // An aggregate of Hydra may have both; what is wrong with it is what counts.
  if (typeof error === "string") return { path: attrPath, error };
  return typeof drvPath === "string" ? { path: attrPath, drv: drvPath } : null;
}

/**
 * Evaluates a set of derivations with `nix-eval-jobs`: several workers at once, each attribute told as soon as it is known, and one that cannot be
 * evaluated does not hide the others. Null when it found nothing or did not work at all, so that Nix itself is asked and says why.
 */
export async function evaluateJobs(
  context: NixContext,
  request: EvaluationTrust & { readonly installable: string },
  emit: (output: NixOutput) => void,
): Promise<readonly EvalJob[] | null> {
  const { evaluationBytes = EVALUATION_BYTES, installable } = request;
  const workersCount = Math.max(1, Math.min(availableParallelism(), Math.floor(evaluationBytes / WORKER_BYTES)));
  const share = { ...request, evaluationBytes: Math.floor(evaluationBytes / workersCount) };
  const argv = [
    "nix-eval-jobs",
    ...NEW_COMMANDS,
    "--log-format",
    "internal-json",
    "--show-trace",
    ...untrustedSettings(request),
    "--workers",
    String(workersCount),
    "--max-memory-size",
    // Beyond this a worker begins anew, well before it would run out of memory.
    String(Math.floor((share.evaluationBytes / 1024 ** 2) * 0.75)),
    "--flake",
    installable,
  ];
  const jobs: EvalJob[] = [];
  const [log, said, found] = [new NixLog(), createLineSplitter(LINE_CHARS), createLineSplitter(LINE_CHARS)];
  const hear = (lines: readonly string[]): void => {
    for (const line of lines) for (const output of log.line(line, 0)) if (output.kind === "log") emit(output);
  };
  let isUnderstood = true;
  const take = (lines: readonly string[]): void => {
    for (const line of lines) {
      const job = readEvalJob(line);
      if (job === null) isUnderstood = false;
      else jobs.push(job);
      if (job !== null && "drv" in job && isDerivationPath(job.drv))
        emit({ kind: "derivation", derivation: { drv: job.drv, name: derivationName(job.drv), state: "planned" } });
    }
  };
  const env = evaluationEnvironment(context.env, share);
  const done = await capture({ ...context, env }, argv, {
    onStderr: (chunk) => hear(said.push(chunk)),
    onStdout: (chunk) => take(found.push(chunk)),
  });
  hear(said.end());
  take(found.end());
  // Workers answer in any order.
  const name = ({ path }: EvalJob): string => path.join(".");
  return done.exitCode === 0 && isUnderstood && jobs.length > 0
    ? jobs.toSorted((a, b) => (name(a) < name(b) ? -1 : 1))
    : null;
}

/** What is wrong with the attributes of a set, all of them, with the trace of the first; null when nothing is. */
export function failureOfJobs(label: string, jobs: readonly EvalJob[]): NixFailure | null {
  const broken = jobs.flatMap((job) => ("error" in job ? [{ ...job, said: job.error.trim().split("\n") }] : []));
  const [first] = broken;
  if (first === undefined) return null;
  // Nix ends with the error itself; what stands before it is the trace.
  const brief = broken.map(
    ({ path, said }) =>
      `${path.join(".")}: ${said
        .at(-1)
        ?.trim()
        .replace(/^error: /, "")}`,
  );
  const count = `${broken.length} of ${jobs.length} attributes cannot be evaluated`;
  const detail = `${label}: ${count}: ${brief.join("; ")}`.slice(0, LIMITS.textCharacters);
  const lines = first.said.slice(-LIMITS.reasonLines).map((line) => line.slice(0, LIMITS.reasonLineCharacters));
  return { code: "evaluation-failed", detail, lines };
}
