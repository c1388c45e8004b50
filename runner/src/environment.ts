import { delimiter, isAbsolute } from "node:path";

/** What the environment of a job is made of. */
export interface JobEnvironment {
  /** Where programs are looked for; relative entries are dropped, because a checkout must not bring its own `git`. */
  path: string;
  home: string;
  temporary: string;
  /** Facts about the run, which become `PLUMULE_<NAME>`, such as `{ RUN: "…", COMMIT: "…" }`. */
  facts: Readonly<Record<string, string | undefined>>;
  /** Variables that the owner of the machine gives to every job, such as `NIX_REMOTE` or `SSL_CERT_FILE`. */
  machine?: Readonly<Record<string, string>>;
  /** Variables that the job asks for. */
  job?: Readonly<Record<string, string>>;
}

/** The whole environment, or the variable that a job may not set and why. */
export type EnvironmentResult = { ok: true; env: Record<string, string> } | { ok: false; name: string; detail: string };

/**
 * Names that a job cannot choose: the runner's promises, what would run code in the sandbox's launcher before the sandbox stands, and what
 * configures Nix and git, which the runner calls for the job with settings of its own. A script may export what it likes.
 */
const RESERVED =
  /^(?:PLUMULE_.*|LD_.*|DYLD_.*|NIX_.*|GC_.*|GIT_(?!(?:AUTHOR|COMMITTER)_(?:NAME|EMAIL|DATE)$).*|HOME|XDG_.*|TMPDIR|PWD|CI)$/;
const NAME = /^[A-Za-z_][A-Za-z0-9_]{0,127}$/;

/** Why a job cannot set a variable, or null. */
export function variableFault(name: string, value: string): string | null {
  if (!NAME.test(name)) return "letters, digits and underscores, not starting with a digit";
  if (RESERVED.test(name)) return "this name is reserved for the runner";
  return value.includes("\0") ? "a value cannot hold a NUL character" : null;
}

/**
 * The complete environment of a job: nothing of the runner's own is in it unless it is named here. The job's variables win over the machine's
 * and over PATH and LANG, never over the reserved names.
 */
export function jobEnvironment(parts: JobEnvironment): EnvironmentResult {
  for (const [name, value] of Object.entries(parts.job ?? {})) {
    const detail = variableFault(name, value);
    if (detail !== null) return { ok: false, name, detail };
  }
  const facts = Object.entries(parts.facts).flatMap(([name, value]) =>
    value === undefined ? [] : [[`PLUMULE_${name}`, value] as const],
  );
  return {
    ok: true,
    env: {
      PATH: parts.path.split(delimiter).filter(isAbsolute).join(delimiter),
      LANG: "C.UTF-8",
      ...parts.machine,
      ...parts.job,
      HOME: parts.home,
      TMPDIR: parts.temporary,
      CI: "true",
      ...Object.fromEntries(facts),
    },
  };
}
