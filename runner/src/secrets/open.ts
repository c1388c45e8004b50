import { type Assignment, conditionHolds, type SecretCondition, type SecretFacts, workSha256 } from "@plumule/protocol";
import type { OpenedSecrets } from "./files.ts";

/** What everybody but the runner's owner is told: whoever may not have a secret learns neither that it exists nor what it is guarded by. */
export const SECRET_REFUSED = "A secret of this job is missing, or is not for this job.";

/**
 * Secrets of a job, or why it gets none, in words for the runner's owner alone. `elsewhere`: another runner may be able to open them, because
 * this one has not the key.
 */
export type OpenResult = { ok: true; secrets: OpenedSecrets } | { ok: false; elsewhere: boolean; why: string };

/** What opening needs: the age identity, what the machine knows of the commit (asked only when a condition is about it), and the time. */
export type OpenDeps = { identity: string; facts: () => Promise<readonly SecretFacts[]>; nowMs: number };

/** Which job asks. */
export type Asker = Pick<Assignment, "namespace" | "deployment" | "teardown" | "spec" | "untrusted">;

/**
 * Opens the secrets of a job, all or none. What the broker says counts for nothing: the name, the namespace, the work or the condition that
 * were sealed together with the value have to fit what this runner is about to do.
 */
export async function openSecrets(asker: Asker, { identity, facts, nowMs }: OpenDeps): Promise<OpenResult> {
  const { namespace, spec } = asker;
  // Loaded by runs with secrets alone: every other run would start later for it.
  const { openBox } = await import("@plumule/protocol/seal");
  const work = await workSha256(asker);
  const secrets: Record<string, Uint8Array> = {};
  for (const { name, box } of spec.secrets ?? []) {
    const refuse = (why: string, elsewhere = false): OpenResult => ({ ok: false, elsewhere, why: `${name}: ${why}` });
    if (asker.untrusted === true) return refuse("a stranger's job gets none");
    if (box === undefined) return refuse("the job brings no box");
    const opened = await openBox(box, identity);
    if (!opened.ok) return refuse(opened.detail, opened.code === "not-sealed-to-us");
    const { binding, value } = opened.value;
    if (binding.namespace !== namespace) return refuse(`sealed for the namespace ${binding.namespace}`);
    if (binding.name !== name) return refuse(`sealed under the name ${binding.name}`);
    if (binding.expiresAt !== null && Date.parse(binding.expiresAt) <= nowMs)
      return refuse(`its time was over at ${binding.expiresAt}`);
    if (binding.workSha256 !== null && binding.workSha256 !== work) return refuse("sealed for other work");
    const known = await factsFor(asker, binding.condition, binding.workSha256 !== null, facts);
    if (!known.some((one) => conditionHolds(binding.condition, one))) return refuse("its condition does not hold");
    secrets[name] = value;
  }
  return { ok: true, secrets };
}

/**
 * The facts that a condition may use. What a submitter has sealed for this very work may be any work; a stored secret knows nothing of the
 * work, so a commit vouches for it only when the commit itself says all of what is done.
 */
async function factsFor(
  { deployment, spec }: Asker,
  condition: SecretCondition,
  isBound: boolean,
  facts: OpenDeps["facts"],
): Promise<readonly SecretFacts[]> {
  const asks = /"(?:repository|branch|delegate)":/.test(JSON.stringify(condition));
  if (asks && (isBound || isCommitsOwn(spec))) return facts();
  return [{ deployment, repository: null, branch: null, delegate: null }];
}

/** True for work that the commit describes: nobody else's script, and no environment that could change what its programs do (`BASH_ENV`). */
export function isCommitsOwn({ task, env, source }: Pick<Asker["spec"], "task" | "env" | "source">): boolean {
  const isOwnEffect = task.kind === "effect" && task.script === undefined && task.plan === undefined;
  const named = task.kind === "repository" || (isOwnEffect && /^\.(?:#|$)/.test(task.installable));
  return source !== undefined && env === undefined && named;
}
