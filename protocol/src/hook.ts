import * as z from "zod";
import { runnerIdSchema, timeSchema } from "./ids.ts";
import { LIMITS } from "./limits.ts";

/** Id of a hook, and name of one of its secrets. */
const hookName = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, "1 to 63 of a-z, 0-9 and hyphens");

/**
 * When a key or secret counts, in the words of the trust policy: from `validAfter` until `validBefore`, and never from `revokedAt` on. Two
 * that overlap let a sender change over without losing a webhook; one that is over stays for the record.
 */
const validity = {
  validAfter: timeSchema.nullish(),
  validBefore: timeSchema.nullish(),
  revokedAt: timeSchema.nullish(),
};

/** A key of a sender, for as long as it is valid. */
export const hookSignerSchema = z.strictObject({ key: runnerIdSchema, ...validity });
export type HookSigner = z.output<typeof hookSignerSchema>;

/**
 * A shared secret. `whsec_` and base64 is that of Standard Webhooks; any other text is taken as its characters. Without `secret` the one
 * that the hook has under this name stays, so that rules can be changed by people who do not know it.
 */
export const hookSecretSchema = z.strictObject({
  name: hookName,
  secret: z.string().min(24).max(128).optional(),
  ...validity,
});
export type HookSecret = z.output<typeof hookSecretSchema>;

/** A host name in lower case: at least two labels, and no address. */
export const hostSchema = z
  .string()
  .max(253)
  .regex(/^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$/, "a lower-case host name");

/**
 * What webhooks of one sender are verified with. `keys` are valid without end, `signers` for a time; `secret` is short for one of `secrets` that
 * is named `secret`. Where neither `secret` nor `secrets` is given the hook keeps those that it has; an empty list takes them
 * away. `statusHosts` are the hosts to which the state of a commit may be reported when a webhook asks for it.
 */
export const hookSchema = z
  .strictObject({
    id: hookName,
    keys: z.array(runnerIdSchema).max(LIMITS.hookSigners).optional(),
    signers: z.array(hookSignerSchema).max(LIMITS.hookSigners).optional(),
    secret: z.string().min(24).max(128).optional(),
    secrets: z.array(hookSecretSchema).max(LIMITS.hookSecrets).optional(),
    statusHosts: z.array(hostSchema).max(LIMITS.statusHosts).optional(),
  })
  .meta({ id: "Hook" });
export type Hook = z.output<typeof hookSchema>;

/** A hook as it is shown: secrets by name alone, never as text. Without `hasSecret` it may be put back as it is. */
export const hookViewSchema = z.object({
  id: z.string(),
  keys: z.array(runnerIdSchema),
  hasSecret: z.boolean(),
  signers: z.array(hookSignerSchema).optional(),
  secrets: z.array(hookSecretSchema.omit({ secret: true })).optional(),
  statusHosts: z.array(hostSchema).optional(),
});
export type HookView = z.output<typeof hookViewSchema>;

/** Whether a key or secret counts at a time, ms since 1970. */
export function isValidAt(
  { validAfter, validBefore, revokedAt }: Pick<HookSigner, "validAfter" | "validBefore" | "revokedAt">,
  atMs: number,
): boolean {
  return (
    (validAfter == null || Date.parse(validAfter) <= atMs) &&
    (validBefore == null || atMs < Date.parse(validBefore)) &&
    (revokedAt == null || atMs < Date.parse(revokedAt))
  );
}
