import {
  admitDidKey,
  type FieldError,
  LIMITS,
  refuse,
  type Refusal,
  type Trigger,
  TRUST_LIMITS,
  type TriggersBody,
  patternsFault,
  templateFault,
} from "@plumule/protocol";

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
export function checkTriggers({
  triggers,
  hooks,
  secrets = {},
  approvals = {},
  quorums = {},
  skipUnchanged = [],
  locks = {},
  limits = {},
  paths = {},
}: TriggersBody): Refusal | null {
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
    ...Object.entries({ approvals, locks, limits, paths }).flatMap(([field, named]) =>
      Object.keys(named).flatMap((name) =>
        triggers.some((trigger) => trigger.name === name)
          ? []
          : [{ pointer: `/${field}/${name}`, detail: "there is no rule of this name" }],
      ),
    ),
    ...Object.keys(quorums).flatMap((name) => {
      const fault = quorumFault(triggers.find((trigger) => trigger.name === name));
      return fault === null ? [] : [{ pointer: `/quorums/${name}`, detail: fault }];
    }),
    ...skipUnchanged.flatMap((name, at) => {
      const fault = skipFault(
        triggers.find((trigger) => trigger.name === name),
        Object.hasOwn(quorums, name),
      );
      return fault === null ? [] : [{ pointer: `/skipUnchanged/${at}`, detail: fault }];
    }),
    ...Object.keys(secrets).flatMap((name) => {
      const fault = secretsFault(triggers.find((trigger) => trigger.name === name));
      return fault === null ? [] : [{ pointer: `/secrets/${name}`, detail: fault }];
    }),
    ...pathsFaults(paths),
    ...triggers.flatMap(({ refs }, at) => {
      const fault = patternsFault(refs);
      return fault === null ? [] : [{ pointer: `/triggers/${at}/refs`, detail: fault }];
    }),
    ...triggers.flatMap(({ deployment }, at) => {
      const fault = templateFault(deployment);
      return fault === null ? [] : [{ pointer: `/triggers/${at}/deployment`, detail: fault }];
    }),
  ];
  return errors.length === 0 ? checkPeople(approvals) : refuse("invalid-body", "The rules are not valid.", { errors });
}

/** Keys whose word may let a stranger's job start are admitted once, here; an admission costs about a millisecond. */
function checkPeople(approvals: NonNullable<TriggersBody["approvals"]>): Refusal | null {
  const keys = new Map<string, string>();
  for (const [name, rule] of Object.entries(approvals))
    for (const field of ["delegates", "trusted", "approvers"] as const)
      for (const [index, key] of (rule[field] ?? []).entries())
        if (!keys.has(key)) keys.set(key, `/approvals/${name}/${field}/${index}`);
  if (keys.size > TRUST_LIMITS.keys) {
    const detail = `${keys.size} people, at most ${TRUST_LIMITS.keys} are allowed together`;
    return refuse("invalid-body", "The rules are not valid.", { errors: [{ pointer: "/approvals", detail }] });
  }
  const weak = [...keys].flatMap(([key, pointer]) => {
    const admitted = admitDidKey(key);
    return admitted.ok ? [] : [{ pointer, detail: admitted.detail }];
  });
  return weak.length === 0 ? null : refuse("weak-key", "A rule names a key that cannot be trusted.", { errors: weak });
}

function pathsFaults(paths: NonNullable<TriggersBody["paths"]>): FieldError[] {
  const count = Object.values(paths).flat().length;
  return [
    ...(count > LIMITS.pathPatterns
      ? [{ pointer: "/paths", detail: `${count} patterns, at most ${LIMITS.pathPatterns} are allowed together` }]
      : []),
    ...Object.entries(paths).flatMap(([name, patterns]) => {
      const fault = patternsFault(patterns);
      return fault === null ? [] : [{ pointer: `/paths/${name}`, detail: fault }];
    }),
  ];
}

/** Why the jobs of a rule have no quorum, or null. */
function quorumFault(trigger: Trigger | undefined): string | null {
  if (trigger === undefined) return "there is no rule of this name";
  return trigger.task.kind === "effect" ? "an effect changes the world once; it cannot be repeated to compare" : null;
}

function skipFault(trigger: Trigger | undefined, hasQuorum: boolean): string | null {
  if (trigger === undefined) return "there is no rule of this name";
  if (hasQuorum) return "a quorum compares builds; skipped ones cannot be compared";
  const { kind } = trigger.task;
  return kind === "nix-build" || kind === "repository"
    ? null
    : "only what Nix builds is known to be the same without being run";
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
