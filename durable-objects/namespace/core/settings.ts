import { admitDidKey, type FieldError, refuse, type Refusal, type Trigger, type TriggersBody } from "@plumule/protocol";
import { templateFault } from "./triggers.ts";

/** Keys of all hooks together: each may cost a verification for a webhook of a stranger. */
const HOOK_KEYS = 64;

/** Whether a document may be replaced: `If-Match` must name the version that stands. */
export function checkIfMatch(ifMatch: string | null, version: number): Refusal | null {
  if (ifMatch === null)
    return refuse(
      "precondition-required",
      `Send If-Match with the ETag of the document that is replaced, now "v${version}".`,
    );
  return ifMatch === `"v${version}"`
    ? null
    : refuse("revision-conflict", `If-Match is ${ifMatch.slice(0, 80)}, the document is now "v${version}".`);
}

/** What is wrong with rules and hooks beyond their schema: names twice, templates that give no name, keys that cannot be trusted. */
export function checkTriggers({ triggers, hooks, secrets = {} }: TriggersBody): Refusal | null {
  const keyCount = hooks.reduce((count, { keys }) => count + (keys?.length ?? 0), 0);
  if (keyCount > HOOK_KEYS)
    return refuse("invalid-body", "The hooks are not valid.", {
      errors: [{ pointer: "/hooks", detail: `${keyCount} keys, at most ${HOOK_KEYS} are allowed together` }],
    });
  const weak: FieldError[] = hooks.flatMap((hook, at) =>
    (hook.keys ?? []).flatMap((key, index) => {
      const admitted = admitDidKey(key);
      return admitted.ok ? [] : [{ pointer: `/hooks/${at}/keys/${index}`, detail: admitted.detail }];
    }),
  );
  if (weak.length > 0) return refuse("weak-key", "A hook names a key that cannot be trusted.", { errors: weak });
  const errors: FieldError[] = [
    ...repeated(
      "/triggers",
      "name",
      triggers.map(({ name }) => name),
    ),
    ...repeated(
      "/hooks",
      "id",
      hooks.map(({ id }) => id),
    ),
    ...Object.keys(secrets).flatMap((name) => {
      const fault = secretsFault(triggers.find((trigger) => trigger.name === name));
      return fault === null ? [] : [{ pointer: `/secrets/${name}`, detail: fault }];
    }),
    ...triggers.flatMap(({ deployment }, at) => {
      const fault = templateFault(deployment);
      return fault === null ? [] : [{ pointer: `/triggers/${at}/deployment`, detail: fault }];
    }),
  ];
  return errors.length === 0 ? null : refuse("invalid-body", "The rules are not valid.", { errors });
}

/** Why a rule gives no secrets, or null. Everybody may push a patch, and a job that is held is one that nobody has vouched for. */
function secretsFault(trigger: Trigger | undefined): string | null {
  if (trigger === undefined) return "there is no rule of this name";
  const takesPatches = trigger.events === undefined || trigger.events.includes("patch");
  return trigger.hold === true || (takesPatches && trigger.authors === undefined)
    ? "a rule that holds its jobs, or takes patches of anybody, gives no secrets"
    : null;
}

function repeated(pointer: string, field: string, names: readonly string[]): FieldError[] {
  return names.flatMap((name, at) =>
    names.indexOf(name) === at ? [] : [{ pointer: `${pointer}/${at}/${field}`, detail: `\`${name}\` is there twice` }],
  );
}
