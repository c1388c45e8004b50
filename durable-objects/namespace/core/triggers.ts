import {
  type ApprovalRule,
  deploymentIdSchema,
  type DeploymentId,
  type Push,
  type SubmitBody,
  type Trigger,
  type TriggersBody,
} from "@plumule/protocol";
import type { Stranger } from "../../deployment/calls.ts";
import { matchesPattern } from "./patterns.ts";
import { didOf, repositoryKey } from "./refs.ts";
import { strangerOf, strangersRequires } from "./strangers.ts";

/** What a rule makes of a push: a job for a deployment, held when it is a stranger's, or in words why none. */
export type Plan =
  | { trigger: string; deployment: DeploymentId; body: SubmitBody; stranger: Stranger | null }
  | { trigger: string; deployment: null; detail: string };

/** What a rule can fill into `deployment`. */
const PLACEHOLDERS = ["repository", "ref", "branch", "patch"] as const;
type Placeholder = (typeof PLACEHOLDERS)[number];

/** True for the commit id of all zeros, with which git says that a ref is gone. */
export function isZeroCommit(commit: string): boolean {
  return /^(?:0{40}|0{64})$/.test(commit);
}

/**
 * What every rule makes of a push, in the order of the rules. By the names of rules: `secrets`, stored secrets for their jobs, which strangers
 * do not get, `approvals`, whose jobs they start without asking, `quorums`, how many runners have to agree about their jobs, `locks`, which they hold while
 * they work, and `skipUnchanged`, the rules whose jobs need not be done again.
 */
export function planJobs(
  push: Push,
  triggers: readonly Trigger[],
  { secrets = {}, approvals = {}, quorums = {}, locks = {}, skipUnchanged = [] }: Partial<TriggersBody> = {},
): Plan[] {
  return triggers.map((trigger) => {
    const { name } = trigger;
    const plan = planJob(push, trigger, secrets[name] ?? [], approvals[name] ?? {});
    if (plan.deployment === null) return plan;
    const body = {
      ...plan.body,
      ...(quorums[name] === undefined ? {} : { quorum: quorums[name] }),
      ...(locks[name] === undefined ? {} : { locks: locks[name] }),
      ...(skipUnchanged.includes(name) ? { skipUnchanged: true } : {}),
    };
    return { ...plan, body };
  });
}

function planJob(push: Push, trigger: Trigger, secrets: readonly string[], approval: ApprovalRule): Plan {
  const refused = whyNot(push, trigger);
  if (refused !== null) return { trigger: trigger.name, deployment: null, detail: refused };
  const deployment = fillTemplate(trigger.deployment, push);
  if (!deploymentIdSchema.safeParse(deployment).success) {
    const detail = `\`${trigger.deployment}\` becomes \`${deployment}\`, which is no name of a deployment (1 to 128 characters, the first a letter or digit)`;
    return { trigger: trigger.name, deployment: null, detail };
  }
  const stranger = strangerOf(push, trigger, approval);
  const closed = stranger === null ? null : whyClosed(stranger, trigger);
  if (closed !== null) return { trigger: trigger.name, deployment: null, detail: closed };
  const body =
    stranger === null
      ? submitBodyOf(push, trigger, secrets)
      : { ...submitBodyOf(push, trigger, []), hold: true, requires: strangersRequires(trigger, approval) };
  return { trigger: trigger.name, deployment, body, stranger };
}

/** Why a rule has no job for strangers at all. */
function whyClosed({ why, approvers }: Stranger, { task }: Trigger): string | null {
  if (task.kind === "effect") return `${why}, and an effect is never run for strangers`;
  return approvers.length === 0
    ? `${why}, and nobody could approve: the webhook names no delegates, the rule no \`delegates\` or \`approvers\``
    : null;
}

function whyNot(push: Push, trigger: Trigger): string | null {
  if (isZeroCommit(push.after)) return "the ref was deleted: there is nothing to build";
  if (trigger.events !== undefined && !trigger.events.includes(push.type))
    return `the rule is for ${trigger.events.join(", ")}, this is a ${push.type}`;
  const repositories = trigger.repositories ?? [];
  if (repositories.length > 0 && !repositories.some((one) => repositoryKey(one) === repositoryKey(push.repository)))
    return `the rule does not name the repository ${push.repository}`;
  if (!trigger.refs.some((pattern) => matchesPattern(pattern, push.ref)))
    return `no pattern of the rule matches ${push.ref}`;
  const author = push.author == null ? null : didOf(push.author);
  if (trigger.authors !== undefined && !trigger.authors.some((one) => didOf(one) === author))
    return author === null
      ? "the rule asks for an author, the push names none"
      : `the rule does not name the author ${push.author}`;
  if (trigger.deployment.includes("{patch}") && push.patch == null)
    return "the deployment's name needs `{patch}`, and this is not a patch";
  return null;
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
