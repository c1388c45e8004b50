import type { ApprovalRule } from "../approval.ts";
import { type DeploymentId, deploymentIdSchema } from "../ids.ts";
import type { Push, Trigger, TriggersBody } from "../namespace.ts";
import type { SubmitBody } from "../submit.ts";
import type { RuleCheck } from "../trigger-test.ts";
import { checkRule } from "./checks.ts";
import { repositoryKey } from "./refs.ts";
import { type Stranger, strangerOf, strangersRequires } from "./strangers.ts";

/**
 * What a rule makes of a push, with all that it asked: a job for a deployment, held when it is a stranger's, or in words why none. `note`
 * says what was not known and counted as met.
 */
export type Plan = { trigger: string; checks: RuleCheck[] } & (
  | { deployment: DeploymentId; body: SubmitBody; stranger: Stranger | null; note: string | null }
  | { deployment: null; detail: string }
);

/** What a rule can fill into `deployment`. */
const PLACEHOLDERS = ["repository", "ref", "branch", "tag", "patch"] as const;
type Placeholder = (typeof PLACEHOLDERS)[number];

/**
 * What every rule makes of a push, in the order of the rules. By the names of rules: `secrets`, stored secrets for their jobs, which strangers
 * do not get, `approvals`, whose jobs they start without asking, `quorums`, how many runners have to agree about their jobs, `locks`, which they hold while
 * they work, `limits`, the most that they may take, `skipUnchanged`, the rules whose jobs need not be done again, and `paths`, of which one has to have changed.
 */
export function planJobs(
  push: Push,
  triggers: readonly Trigger[],
  {
    secrets = {},
    approvals = {},
    quorums = {},
    locks = {},
    limits = {},
    skipUnchanged = [],
    paths = {},
  }: Partial<TriggersBody> = {},
): Plan[] {
  return triggers.map((trigger) => {
    const { name } = trigger;
    const checks = checkRule(push, trigger, ofRule(paths, name));
    const plan = planJob(push, trigger, checks, ofRule(secrets, name) ?? [], ofRule(approvals, name) ?? {});
    if (plan.deployment === null) return plan;
    const [quorum, held, most] = [ofRule(quorums, name), ofRule(locks, name), ofRule(limits, name)];
    const body = {
      ...plan.body,
      ...(quorum === undefined ? {} : { quorum }),
      ...(held === undefined ? {} : { locks: held }),
      ...(most === undefined ? {} : { limits: most }),
      ...(skipUnchanged.includes(name) ? { skipUnchanged: true } : {}),
    };
    return { ...plan, body };
  });
}

/** What stands beside the rules for one of them. A rule may have the name of what every object has: `constructor`. */
function ofRule<T>(named: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(named, name) ? named[name] : undefined;
}

function planJob(
  push: Push,
  trigger: Trigger,
  checks: RuleCheck[],
  secrets: readonly string[],
  approval: ApprovalRule,
): Plan {
  const none = (detail: string): Plan => ({ trigger: trigger.name, checks, deployment: null, detail });
  const unmet = checks.find(({ ok }) => !ok);
  if (unmet !== undefined) return none(unmet.detail);
  const deployment = fillTemplate(trigger.deployment, push);
  if (!deploymentIdSchema.safeParse(deployment).success)
    return none(
      `\`${trigger.deployment}\` becomes \`${deployment}\`, which is no name of a deployment (1 to 128 characters, the first a letter or digit)`,
    );
  const stranger = strangerOf(push, trigger, approval);
  const closed = stranger === null ? null : whyClosed(stranger, trigger);
  if (closed !== null) return none(closed);
  const body =
    stranger === null
      ? submitBodyOf(push, trigger, secrets)
      : { ...submitBodyOf(push, trigger, []), hold: true, requires: strangersRequires(trigger, approval) };
  const note = checks.find(({ assumed }) => assumed === true)?.detail ?? null;
  return { trigger: trigger.name, checks, deployment, body, stranger, note };
}

/** Why a rule has no job for strangers at all. */
function whyClosed({ why, approvers }: Stranger, { task }: Trigger): string | null {
  if (task.kind === "effect") return `${why}, and an effect is never run for strangers`;
  return approvers.length === 0
    ? `${why}, and nobody could approve: the webhook names no delegates, the rule no \`delegates\` or \`approvers\``
    : null;
}

function submitBodyOf(push: Push, trigger: Trigger, secrets: readonly string[]): SubmitBody {
  const { task, mode, interrupt, priority, requires, hold } = trigger;
  const urls = [...new Set([...(trigger.urls ?? []), ...(push.urls ?? [])])].slice(0, 8);
  const summary = push.message?.split("\n", 1)[0]?.trim().slice(0, 200);
  return {
    task,
    source: {
      repository: push.repository,
      commit: push.after,
      ref: push.ref,
      ...(urls.length === 0 ? {} : { urls }),
    },
    ...(mode === undefined ? {} : { mode }),
    ...(interrupt === undefined ? {} : { interrupt }),
    ...(priority === undefined ? {} : { priority }),
    ...(requires === undefined ? {} : { requires }),
    ...(hold === undefined ? {} : { hold }),
    ...(secrets.length === 0 ? {} : { secrets: [...new Set(secrets)].map((name) => ({ name })) }),
    ...(summary === undefined || summary === "" ? {} : { summary }),
  };
}

/**
 * Fills a template with the push's values. What a name cannot hold is written so that different values stay different: `/` becomes
 * `.`, every other byte `_` and two hex digits; otherwise the branches `a/b` and `a-b` would replace each other's jobs.
 */
function fillTemplate(template: string, push: Push): string {
  const values: Record<Placeholder, string> = {
    repository: repositoryKey(push.repository).replace(/^[a-z]+:\/*/, ""),
    ref: push.ref,
    branch: push.ref.replace(/^refs\/(?:heads|tags|patches)\//, ""),
    tag: push.ref.replace(/^refs\/tags\//, ""),
    patch: push.patch ?? "",
  };
  return template.replace(/\{(\w+)\}/g, (whole, name) => (isPlaceholder(name) ? encodeName(values[name]) : whole));
}

function encodeName(value: string): string {
  return value.replaceAll(/[^A-Za-z0-9-]/gu, (character) =>
    character === "/"
      ? "."
      : Array.from(new TextEncoder().encode(character), (byte) => `_${byte.toString(16).padStart(2, "0")}`).join(""),
  );
}

function isPlaceholder(name: string): name is Placeholder {
  return (PLACEHOLDERS as readonly string[]).includes(name);
}

/** What is wrong with a rule's `deployment`, or null: an unknown placeholder, or characters that no name has. */
export function templateFault(template: string): string | null {
  const unknown = [...template.matchAll(/\{([^{}]*)\}/g)]
    .map(([, name]) => name ?? "")
    .find((name) => !isPlaceholder(name));
  if (unknown !== undefined) return `{${unknown}} is not one of ${PLACEHOLDERS.map((name) => `{${name}}`).join(", ")}`;
  return deploymentIdSchema.safeParse(template.replaceAll(/\{\w+\}/g, "x")).success
    ? null
    : "around the placeholders only A-Z, a-z, 0-9, dot, underscore and hyphen may stand, and the first must be a letter or digit";
}
