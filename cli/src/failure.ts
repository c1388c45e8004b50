import type { FieldError, Problem } from "@plumule/protocol";
import { EXIT, type ExitCode, exitOfProblem } from "./exit-codes.ts";

/** Why a command did not do what was asked, as a value: what went wrong, why, and what to do next. */
export type Failure = {
  exit: ExitCode;
  what: string;
  why?: string | undefined;
  errors?: readonly FieldError[] | undefined;
  next: string;
  /** The broker's own words, for `--json`. */
  problem?: Problem;
};

/** True for a failure, false for any other value that a step of a command returns. */
export function isFailure(value: unknown): value is Failure {
  return typeof value === "object" && value !== null && "exit" in value && "what" in value;
}

/** A failure that the caller can mend by calling otherwise. */
export function misuse(what: string, next: string, errors?: readonly FieldError[]): Failure {
  return { exit: EXIT.usage, what, next, errors };
}

/** What the broker refused, in its own words. */
export function failureOf(problem: Problem): Failure {
  const { title, detail, errors, next } = problem;
  return { exit: exitOfProblem(problem), what: title, why: detail, errors, next, problem };
}
