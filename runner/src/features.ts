import { EFFECTS_FEATURE, EXEC_FEATURE, EXPANSION_FEATURE, LIMITS, UNTRUSTED_FEATURE } from "@plumule/protocol";

/** Offered by a runner whose kernel counts all processes of a job together against its limits. */
const MEMORY_LIMIT_FEATURE = "memory-limit";
const TASK_LIMIT_FEATURE = "task-limit";
const NIX_FEATURE = "nix";
/** Words that are promises of a runner, not names that somebody may give it. */
const PROMISES = [
  EXPANSION_FEATURE,
  UNTRUSTED_FEATURE,
  EFFECTS_FEATURE,
  EXEC_FEATURE,
  MEMORY_LIMIT_FEATURE,
  TASK_LIMIT_FEATURE,
] as const;

/** Features that a runner may be given: with all that it finds itself they have to fit into an offer. */
export const GIVEN_FEATURES = LIMITS.labelsCount - [NIX_FEATURE, ...PROMISES].length;
/** Systems that a runner may be given, likewise: it finds one itself. */
export const GIVEN_SYSTEMS = LIMITS.systemsCount - 1;

/** What a machine and its owner allow, of which a runner makes features. */
export type FoundFeatures = {
  nix: boolean;
  effects: boolean;
  untrusted: boolean;
  exec: boolean;
  memoryLimit: boolean;
  taskLimit: boolean;
};

/** The features of an offer: what was found, and what the owner has named beside it. */
export function offeredFeatures(found: FoundFeatures, given: readonly string[]): string[] {
  const words: Record<keyof FoundFeatures, string> = {
    nix: NIX_FEATURE,
    effects: EFFECTS_FEATURE,
    untrusted: UNTRUSTED_FEATURE,
    exec: EXEC_FEATURE,
    memoryLimit: MEMORY_LIMIT_FEATURE,
    taskLimit: TASK_LIMIT_FEATURE,
  };
  const own = (Object.keys(words) as (keyof FoundFeatures)[]).flatMap((key) => (found[key] ? [words[key]] : []));
  const promises: readonly string[] = PROMISES;
  return [...new Set([...own, EXPANSION_FEATURE, ...given.filter((feature) => !promises.includes(feature))])];
}
