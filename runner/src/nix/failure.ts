import { stripColour } from "./lines.ts";

/** What a trusted error message of Nix says about a derivation, or about the whole process. */
export type Verdict =
  | {
      readonly state: "failed" | "dependency-failed" | "timeout" | "log-limit" | "hash-mismatch" | "not-deterministic";
      /** Undefined when Nix does not name the derivation: 2.34 says only "timed out after 1 seconds". */
      readonly drv: string | undefined;
      /** Of the builder. */
      readonly exitCode?: number;
      /** One line for people. */
      readonly reason: string;
    }
  | { readonly state: "interrupted" };

/** Longest reason kept. */
export const MAX_REASON_CHARS = 500;

/**
 * Reads the verdict out of `raw_msg`, the text that only Nix itself can send; undefined when the message carries none.
 * The prose is that of 2.8 and of 2.34 (https://github.com/NixOS/nix, `libstore/build`). Only the first two lines count:
 * below them Nix repeats the tail of the builder's log, which the builder can forge.
 */
export function readVerdict(raw: string): Verdict | undefined {
  const [first = "", second = ""] = stripColour(raw)
    .split("\n", 2)
    .map((line) => line.slice(0, MAX_REASON_CHARS));
  return readBuilderFailure(first) ?? readCannotBuild(first, second) ?? readOther(first);
}

function readBuilderFailure(line: string): Verdict | undefined {
  const match = /^(?:builder for|build of) '([^']+\.drv)'.*? (failed with exit code (\d+)|failed (?:due|to) .*)/.exec(
    line,
  );
  if (match === null) return undefined;
  const [, drv, what = "", code] = match;
  return failed(drv, `builder ${what.replace(/[;:]$/, "")}`, code);
}

function readCannotBuild(first: string, second: string): Verdict | undefined {
  const drv = /^Cannot build '([^']+\.drv)'\./.exec(first)?.[1];
  const reason = /^\s*Reason: (.+?)\.?$/.exec(second)?.[1] ?? /\.\s*Reason: (.+?)\.?$/.exec(first)?.[1];
  if (drv === undefined || reason === undefined) return undefined;
  if (/depend/.test(reason)) return { state: "dependency-failed", drv, reason };
  return failed(drv, reason, /exit code (\d+)/.exec(reason)?.[1]);
}

function readOther(line: string): Verdict | undefined {
  const dependency = /^(\d+) dependenc(?:y|ies) of derivation '([^']+\.drv)'/.exec(line);
  if (dependency !== null) {
    const count = dependency[1] ?? "";
    const reason = `${count} ${count === "1" ? "dependency" : "dependencies"} failed`;
    return { state: "dependency-failed", drv: dependency[2], reason };
  }
  const hash = /^hash mismatch in fixed-output derivation '([^']+\.drv)'/.exec(line);
  if (hash !== null)
    return { state: "hash-mismatch", drv: hash[1], reason: "hash mismatch in fixed-output derivation" };
  const varying = /^derivation '([^']+\.drv)' may not be deterministic/.exec(line);
  if (varying !== null) return { state: "not-deterministic", drv: varying[1], reason: "may not be deterministic" };
  const killed =
    /^building (?:of|derivation) '([^'!^]+\.drv)[^']*'.*?(timed out after \d+ seconds(?: of silence)?|killed after writing more.*)/.exec(
      line,
    );
  if (killed !== null) {
    const reason = killed[2] ?? "";
    return { state: reason.startsWith("timed out") ? "timeout" : "log-limit", drv: killed[1], reason };
  }
  const unsupported = /^(a '.*) is required to build '([^']+\.drv)', (but I am .*)$/.exec(line);
  if (unsupported !== null)
    return failed(unsupported[2], `${unsupported[1]} is required, ${unsupported[3]}`, undefined);
  if (line.startsWith("timed out after")) return { state: "timeout", drv: undefined, reason: line };
  return line.startsWith("interrupted by the user") ? { state: "interrupted" } : undefined;
}

function failed(drv: string | undefined, reason: string, code: string | undefined): Verdict {
  return { state: "failed", drv, reason, ...(code === undefined ? {} : { exitCode: Number(code) }) };
}
