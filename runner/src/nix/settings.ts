/** Most memory of one evaluation unless given, bytes: what Hydra gives. A whole system fits, a bomb does not take the machine along. */
export const EVALUATION_BYTES = 4 * 1024 ** 3;

/** How far code that is evaluated is trusted. */
export interface EvaluationTrust {
  /** Lets evaluation build derivations and read them. Off unless given: it blocks and hides builds from the plan. */
  readonly allowImportFromDerivation?: boolean;
  /** Most memory of one evaluation. {@link EVALUATION_BYTES} unless given. */
  readonly evaluationBytes?: number;
}

/** Settings for code of strangers, as arguments: nothing of theirs may change Nix's own configuration or name other flakes. */
export function untrustedSettings({ allowImportFromDerivation = false }: EvaluationTrust): string[] {
  const settings = {
    "accept-flake-config": "false",
    "use-registries": "false",
    "flake-registry": "",
    "allow-import-from-derivation": String(allowImportFromDerivation),
  };
  return Object.entries(settings).flatMap(([name, value]) => ["--option", name, value]);
}

/** The environment of an evaluation. Its memory is that of the evaluator's garbage collector, which reads this. */
export function evaluationEnvironment(
  env: Readonly<Record<string, string>>,
  { evaluationBytes = EVALUATION_BYTES }: EvaluationTrust,
): Record<string, string> {
  return { ...env, GC_MAXIMUM_HEAP_SIZE: String(evaluationBytes) };
}
