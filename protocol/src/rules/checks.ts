import type { Push, Trigger } from "../namespace.ts";
import type { RuleCheck } from "../trigger-test.ts";
import { matchesPattern } from "./patterns.ts";
import { didOf, repositoryKey } from "./refs.ts";

/** Characters of a path that a sentence quotes. */
const QUOTED_CHARACTERS = 120;

/** True for the commit id of all zeros, with which git says that a ref is gone. */
export function isZeroCommit(commit: string): boolean {
  return /^(?:0{40}|0{64})$/.test(commit);
}

/** Everything that a rule asks of a push, met or not. `paths` are the rule's patterns of changed paths; undefined asks for none. */
export function checkRule(push: Push, trigger: Trigger, paths?: readonly string[]): RuleCheck[] {
  return [
    ...(isZeroCommit(push.after) ? [unmet("commit", "the ref was deleted: there is nothing to build")] : []),
    ...eventChecks(push, trigger),
    ...repositoryChecks(push, trigger),
    refCheck(push, trigger),
    ...authorChecks(push, trigger),
    ...templateChecks(push, trigger),
    ...(paths === undefined ? [] : [pathsCheck(push, paths)]),
  ];
}

/** Whether patterns choose a text, and by which one: a pattern without `!` has to match it, and none behind a `!` may. */
export function choose(patterns: readonly string[], text: string): { ok: boolean; by: string | null } {
  const excluding = patterns.find((pattern) => pattern.startsWith("!") && matchesPattern(pattern.slice(1), text));
  if (excluding !== undefined) return { ok: false, by: excluding };
  const by = patterns.find((pattern) => !pattern.startsWith("!") && matchesPattern(pattern, text)) ?? null;
  return { ok: by !== null, by };
}

/** What is wrong with a list of patterns, or null: one that only excludes chooses nothing. */
export function patternsFault(patterns: readonly string[]): string | null {
  return patterns.some((pattern) => !pattern.startsWith("!"))
    ? null
    : "every pattern begins with `!`, so nothing is chosen: add what they are excluded from, such as `**`";
}

function eventChecks({ type }: Push, { events }: Trigger): RuleCheck[] {
  if (events === undefined) return [];
  return events.includes(type)
    ? [met("event", `it is a ${type}`)]
    : [unmet("event", `the rule is for ${events.join(", ")}, this is a ${type}`)];
}

function repositoryChecks({ repository }: Push, { repositories = [] }: Trigger): RuleCheck[] {
  if (repositories.length === 0) return [];
  return repositories.some((one) => repositoryKey(one) === repositoryKey(repository))
    ? [met("repository", `the rule names ${repository}`)]
    : [unmet("repository", `the rule does not name the repository ${repository}`)];
}

function refCheck({ ref }: Push, { refs }: Trigger): RuleCheck {
  const { ok, by } = choose(refs, ref);
  if (ok) return met("ref", `\`${by}\` matches ${ref}`);
  return unmet("ref", by === null ? `no pattern of the rule matches ${ref}` : `\`${by}\` leaves ${ref} out`);
}

function authorChecks(push: Push, { authors }: Trigger): RuleCheck[] {
  if (authors === undefined) return [];
  if (push.author == null) return [unmet("author", "the rule asks for an author, the push names none")];
  const author = didOf(push.author);
  return authors.some((one) => didOf(one) === author)
    ? [met("author", `the rule names ${push.author}`)]
    : [unmet("author", `the rule does not name the author ${push.author}`)];
}

/** A name that is to tell patches or tags apart cannot be filled by anything else. */
function templateChecks({ patch, ref }: Push, { deployment }: Trigger): RuleCheck[] {
  const needs = [
    ["patch", (patch ?? "") !== ""],
    ["tag", ref.startsWith("refs/tags/")],
  ] as const;
  return needs.flatMap(([name, isThere]) => {
    if (!deployment.includes(`{${name}}`)) return [];
    return isThere
      ? [met("template", `it is a ${name}, as \`{${name}}\` needs`)]
      : [unmet("template", `the deployment's name needs \`{${name}}\`, and this is not a ${name}`)];
  });
}

/** What is not known counts as changed: a job too many is seen, one too few is missed. */
function pathsCheck({ paths, pathsTruncated }: Push, patterns: readonly string[]): RuleCheck {
  if (paths === undefined) return assumed("paths", "which paths changed is not known, which counts as a match");
  for (const path of paths) {
    const { ok, by } = choose(patterns, path);
    if (ok) return met("paths", `\`${by}\` matches ${quoted(path)}`);
  }
  if (pathsTruncated === true)
    return assumed("paths", `more paths changed than the ${paths.length} that are told, which counts as a match`);
  if (paths.length === 0) return unmet("paths", "the rule asks for changed paths, and no path changed");
  const [first = ""] = paths;
  return unmet(
    "paths",
    paths.length === 1
      ? `the rule does not ask for the path that changed, ${quoted(first)}`
      : `the rule asks for none of the ${paths.length} paths that changed, such as ${quoted(first)}`,
  );
}

function quoted(path: string): string {
  return path.length <= QUOTED_CHARACTERS ? path : `${path.slice(0, QUOTED_CHARACTERS)}…`;
}

function met(name: string, detail: string): RuleCheck {
  return { name, ok: true, detail };
}

function unmet(name: string, detail: string): RuleCheck {
  return { name, ok: false, detail };
}

function assumed(name: string, detail: string): RuleCheck {
  return { name, ok: true, detail, assumed: true };
}
