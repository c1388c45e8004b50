import {
  admitDidKey,
  type FieldError,
  type Hook,
  type HookSecret,
  type HookView,
  isFor,
  parseWebhookSecret,
  refuse,
  type Refusal,
  type TrustPolicy,
} from "@plumule/protocol";

/** A hook with its secrets. A persisted contract; a hook of an early version has one `secret` instead. */
export type StoredHook = Omit<Hook, "secret" | "secrets"> & { secrets: readonly StoredSecret[] };
export type StoredSecret = HookSecret & { secret: string };

/** The name of a hook's secret that was given as `secret`. */
export const SHORT_SECRET = "secret";

/** Keys and secrets of all hooks together: each may cost a verification for a webhook of a stranger. */
const HOOK_KEYS = 64;

/**
 * The hooks that a document asks for, each with the secrets that it brings or keeps. Whoever changes a rule does not know the secrets, so that
 * leaving them out keeps them: they go only when a list says so, or with their hook.
 */
export function takeHooks(hooks: readonly Hook[], before: readonly StoredHook[]): StoredHook[] | Refusal {
  const weak: FieldError[] = [];
  const errors: FieldError[] = [];
  const taken = hooks.map(({ secret, secrets, ...hook }, at): StoredHook => {
    const kept = before.find(({ id }) => id === hook.id)?.secrets ?? [];
    const named = [...(secret === undefined ? [] : [{ name: SHORT_SECRET, secret }]), ...(secrets ?? [])];
    const found =
      secret === undefined && secrets === undefined ? kept : readSecrets(named, kept, `/hooks/${at}/secrets`, errors);
    for (const [field, keys] of keyLists(hook))
      for (const [index, key] of keys.entries()) {
        const admitted = admitDidKey(key);
        if (!admitted.ok) weak.push({ pointer: `/hooks/${at}/${field}/${index}`, detail: admitted.detail });
      }
    for (const [index, { key }] of (hook.signers ?? []).entries())
      if (hook.keys?.includes(key) === true)
        errors.push({
          pointer: `/hooks/${at}/signers/${index}`,
          detail: "the key is in `keys` too, where it never ends",
        });
    if (keyCount({ ...hook, secrets: found }) === 0)
      errors.push({ pointer: `/hooks/${at}`, detail: "a hook needs `keys`, `signers` or a secret" });
    return { ...hook, secrets: found };
  });
  const count = taken.reduce((sum, hook) => sum + keyCount(hook), 0);
  if (count > HOOK_KEYS)
    errors.push({ pointer: "/hooks", detail: `${count} keys and secrets, at most ${HOOK_KEYS} are allowed together` });
  if (weak.length > 0) return refuse("weak-key", "A hook names a key that cannot be trusted.", { errors: weak });
  return errors.length === 0 ? taken : refuse("invalid-body", "The hooks are not valid.", { errors });
}

function readSecrets(
  named: readonly HookSecret[],
  kept: readonly StoredSecret[],
  pointer: string,
  errors: FieldError[],
): StoredSecret[] {
  return named.flatMap((one, index) => {
    const secret = one.secret ?? kept.find(({ name }) => name === one.name)?.secret;
    const detail =
      named.findIndex(({ name }) => name === one.name) === index
        ? secretFault(secret)
        : `\`${one.name}\` is there twice`;
    if (detail !== null) errors.push({ pointer: `${pointer}/${index}`, detail });
    return secret === undefined ? [] : [{ ...one, secret }];
  });
}

/** A text that wants to be a Standard Webhooks secret has to be one: taken as its characters it would match nothing that is sent. */
function secretFault(secret: string | undefined): string | null {
  if (secret === undefined) return "there is no secret of this name to keep: give its `secret`";
  if (!secret.startsWith("whsec_")) return null;
  const parsed = parseWebhookSecret(secret);
  return parsed.ok ? null : parsed.detail;
}

function keyLists({ keys, signers }: Pick<Hook, "keys" | "signers">): ["keys" | "signers", string[]][] {
  return [
    ["keys", keys ?? []],
    ["signers", (signers ?? []).map(({ key }) => key)],
  ];
}

function keyCount({ keys, signers, secrets }: StoredHook): number {
  return (keys?.length ?? 0) + (signers?.length ?? 0) + secrets.length;
}

/** Shown to people: a hook names its secrets, and never says them. */
export function hookView({ id, keys, signers, secrets, statusHosts }: StoredHook): HookView {
  return {
    id,
    keys: keys ?? [],
    hasSecret: secrets.length > 0,
    ...(signers === undefined ? {} : { signers }),
    ...(secrets.length === 0 ? {} : { secrets: secrets.map(({ secret: _, ...shown }) => shown) }),
    ...(statusHosts === undefined ? {} : { statusHosts }),
  };
}

/** Every hook with the keys that the trust policy believes about webhooks, for as long as it does. */
export function withPolicySigners(hooks: readonly StoredHook[], policy: TrustPolicy | null): StoredHook[] {
  const trusted = (policy?.signers ?? []).filter((signer) => isFor(signer, "webhook"));
  return hooks.map((hook) => {
    const named = new Set([...(hook.keys ?? []), ...(hook.signers ?? []).map(({ key }) => key)]);
    const added = trusted
      .filter(({ key }) => !named.has(key))
      .map(({ key, validAfter, validBefore, revokedAt }) => ({ key, validAfter, validBefore, revokedAt }));
    return added.length === 0 ? hook : { ...hook, signers: [...(hook.signers ?? []), ...added] };
  });
}
