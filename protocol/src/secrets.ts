import * as z from "zod";
import { sha256Hex, utf8 } from "./bytes.ts";
import { didKeyOf } from "./did-key.ts";
import { describeIssues, type Envelope, openEnvelope, signEnvelope } from "./dsse.ts";
import type { Signer } from "./ed25519.ts";
import { deploymentIdSchema, namespaceIdSchema, runnerIdSchema, sha256Schema, timeSchema } from "./ids.ts";
import { admitDidKey } from "./key-admission.ts";
import { LIMITS } from "./limits.ts";
import { accepted, refused, type Result } from "./result.ts";
import { wireEnvelopeSchema } from "./run.ts";
import { repositoryUrlSchema, secretNameSchema, type SubmitBody } from "./submit.ts";

/** An age recipient of the X25519 kind (age-encryption.org/v1): what a runner publishes, and what a submitter seals to. */
export const recipientSchema = z
  .string()
  .regex(/^age1[02-9ac-hj-np-z]{58}$/, "an age recipient of an X25519 key (age1…)");

/** The context of a signed recipient: these bytes start what is signed, so that it can pass for nothing else that a runner signs. */
export const RECIPIENT_PAYLOAD_TYPE = "application/vnd.plumule.secret-recipient+json";

/** What a runner says about where its secrets can be sealed to. Signed by its did:key, so that a broker cannot put its own key there. */
export const recipientStatementSchema = z.strictObject({
  runner: runnerIdSchema,
  recipient: recipientSchema,
  createdAt: timeSchema,
});
export type RecipientStatement = z.output<typeof recipientStatementSchema>;

/** Signs a runner's recipient. The runner named is the signer's key. */
export async function signRecipient(
  { recipient, createdAt }: Omit<RecipientStatement, "runner">,
  signer: Signer,
): Promise<Envelope> {
  const statement: RecipientStatement = { runner: didKeyOf(signer.publicKey), recipient, createdAt };
  return signEnvelope(RECIPIENT_PAYLOAD_TYPE, utf8(JSON.stringify(statement)), signer);
}

/** The recipient of the runner with this did:key, when that key has signed it. Whoever seals calls this with keys of their own choice. */
export async function verifyRecipient(
  envelope: unknown,
  runner: string,
): Promise<Result<RecipientStatement, "weak-key" | "bad-recipient">> {
  const admitted = admitDidKey(runner);
  if (!admitted.ok) return refused("weak-key", admitted.detail);
  const opened = await openEnvelope(envelope, { keys: [admitted.value], payloadTypes: [RECIPIENT_PAYLOAD_TYPE] });
  if (!opened.ok) return refused("bad-recipient", opened.detail);
  const parsed = recipientStatementSchema.safeParse(opened.value.value);
  if (!parsed.success) return refused("bad-recipient", describeIssues(parsed.error));
  return parsed.data.runner === runner
    ? accepted(parsed.data)
    : refused("bad-recipient", `it names ${parsed.data.runner}, but is signed by ${runner}`);
}

/**
 * When a secret may be given to a job. `repository`, `branch` and `delegate` are about the commit and hold only for work that the commit
 * itself describes; an empty `and` holds always. There is no "not", as in Hercules: a fact that is missing must never open a secret.
 */
export type SecretCondition =
  | { repository: string }
  | { branch: string }
  | { delegate: string }
  | { deployment: string }
  | { and: SecretCondition[] }
  | { or: SecretCondition[] };

const conditions = z.lazy(() => z.array(secretConditionSchema).max(LIMITS.secretConditions));
export const secretConditionSchema: z.ZodType<SecretCondition> = z
  .union([
    z.strictObject({ repository: repositoryUrlSchema }),
    z.strictObject({ branch: z.string().min(1).max(255) }),
    z.strictObject({ delegate: runnerIdSchema }),
    z.strictObject({ deployment: deploymentIdSchema }),
    z.strictObject({ and: conditions }),
    z.strictObject({ or: conditions }),
  ])
  .meta({ id: "SecretCondition" });

/** What a runner has found out about a job's commit by itself; null where it could not, or where the work is not the commit's own. */
export type SecretFacts = {
  deployment: string;
  repository: string | null;
  branch: string | null;
  /** did:key that signed the commit. */
  delegate: string | null;
};

/** Whether a condition holds. Pure, so that everybody who shows conditions reads them as the runner does. */
export function conditionHolds(condition: SecretCondition, facts: SecretFacts): boolean {
  if ("and" in condition) return condition.and.every((part) => conditionHolds(part, facts));
  if ("or" in condition) return condition.or.some((part) => conditionHolds(part, facts));
  if ("repository" in condition) return facts.repository === condition.repository;
  if ("branch" in condition) return facts.branch === condition.branch;
  if ("delegate" in condition) return facts.delegate === condition.delegate;
  return facts.deployment === condition.deployment;
}

/** A condition for people: `branch=main and (delegate=did:key:… or deployment=blog)`. */
export function describeCondition(condition: SecretCondition): string {
  const join = (parts: readonly SecretCondition[], word: string): string =>
    parts
      .map((part) => ("or" in part && parts.length > 1 ? `(${describeCondition(part)})` : describeCondition(part)))
      .join(` ${word} `);
  if ("and" in condition) return condition.and.length === 0 ? "always" : join(condition.and, "and");
  if ("or" in condition) return condition.or.length === 0 ? "never" : join(condition.or, "or");
  return Object.entries(condition)
    .map(([fact, value]) => `${fact}=${String(value)}`)
    .join();
}

/**
 * What a box is for, sealed together with the value. A persisted contract. `work` binds it to what one job does (`workSha256`); null is a
 * stored secret, which its condition guards. The runner gives the value to nothing else, whatever the broker says.
 */
export const secretBindingSchema = z.strictObject({
  version: z.literal(1),
  namespace: namespaceIdSchema,
  name: secretNameSchema,
  workSha256: sha256Schema.nullable(),
  condition: secretConditionSchema,
  expiresAt: timeSchema.nullable(),
});
export type SecretBinding = z.output<typeof secretBindingSchema>;

/** Everything that decides what a job does with a secret. `teardown` is the broker's word in an assignment and false for a submit. */
export type Work = { namespace: string; deployment: string; teardown: boolean; spec: SubmitBody };

/**
 * The digest of what a job will do: namespace, deployment, task, configuration, environment, type and source, as JSON with sorted keys.
 * The job's id is not in it, because the broker makes that after sealing, and need not be: whoever repeats equal work learns nothing that
 * the submitter did not allow, and any other work has another digest. A step of a task file is a part of the work of the whole file, for which its secrets
 * were sealed, and so is what a schedule runs of it: which step or schedule it is is left out. The runner sees to it that the file itself gives a step what it is given.
 */
export async function workSha256({ namespace, deployment, teardown, spec }: Work): Promise<string> {
  const { configuration, env, type, source } = spec;
  const {
    step: _step,
    schedule: _schedule,
    ...task
  } = spec.task.kind === "repository" ? spec.task : { ...spec.task, step: undefined, schedule: undefined };
  const work = { namespace, deployment, teardown, task, configuration, env, type, source };
  return sha256Hex(utf8(`plumule work 1\n${sortedJson(work)}`));
}

/** JSON without white space whose keys are sorted, so that equal values have equal bytes whoever wrote them. */
function sortedJson(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) =>
    typeof part === "object" && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  );
}

const boxes = { box: z.base64().min(1).max(LIMITS.secretBoxCharacters) };
const runners = z.array(runnerIdSchema).min(1).max(LIMITS.secretRunners);

/** A secret to keep for the jobs of a namespace: the box, who can open it, and a copy of its condition for people. */
export const secretBodySchema = z
  .strictObject({ ...boxes, runners, condition: secretConditionSchema })
  .meta({ id: "SecretBody" });
export type SecretBody = z.output<typeof secretBodySchema>;

/** A stored secret as lists show it: never the box. */
export const secretViewSchema = z
  .object({
    name: secretNameSchema,
    runners: z.array(runnerIdSchema),
    condition: secretConditionSchema,
    storedAt: timeSchema,
    storedBy: z.string(),
  })
  .meta({ id: "Secret" });
export type SecretView = z.output<typeof secretViewSchema>;

/** A runner's signed recipient, as it publishes it. */
export const recipientBodySchema = z.strictObject({ recipient: wireEnvelopeSchema }).meta({ id: "RecipientBody" });
