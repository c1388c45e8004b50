import { accepted, LIMITS, type Push, pushBodySchema, refused, type Result } from "@plumule/protocol";

/** One line of what git tells a `post-receive` hook (githooks(5)): `<old> SP <new> SP <ref>`; all zeros is "no commit". */
export type RefUpdate = { before: string; after: string; ref: string };

/** Reads one line of the hook's input, or null when git would not have written it. */
export function parseRefUpdate(line: string): RefUpdate | null {
  const [, before, after, ref] = /^([0-9a-f]{40,64}) ([0-9a-f]{40,64}) (\S+)$/.exec(line) ?? [];
  return before === undefined || after === undefined || ref === undefined ? null : { before, after, ref };
}

/** True when the update removes the ref. */
export function isDeletion({ after }: RefUpdate): boolean {
  return /^0+$/.test(after);
}

/** Where pushes come from and whom they are told. `message` is the subject of the newest commit, where it is known. */
export type PushOrigin = {
  audience: string;
  repository: string;
  urls?: readonly string[];
  message?: string | null;
  /** Greater than that of every earlier push of this sender to the same ref. */
  number?: number;
};

/** Whom a webhook is signed for, `<broker origin>/v1/{ns}`: one for this broker and namespace cannot be replayed to another. */
export function audienceOf(url: string, namespace: string): string {
  return `${new URL(url).origin}/v1/${namespace}`;
}

/** The webhook body of a ref update, `before` null where nobody knows it, or why it is none: refs beside branches, tags and patches start no jobs. */
export function pushOf(
  update: Omit<RefUpdate, "before"> & { before: string | null },
  origin: PushOrigin,
): Result<Push, "not-a-push"> {
  const { repository, audience, urls, message, number } = origin;
  const parsed = pushBodySchema.safeParse({
    type: typeOf(update.ref),
    audience,
    repository,
    ...(urls === undefined || urls.length === 0 ? {} : { urls }),
    ref: update.ref,
    before: update.before,
    after: update.after,
    ...(number === undefined ? {} : { number }),
    ...(message == null ? {} : { message: message.slice(0, LIMITS.textCharacters) }),
  });
  if (parsed.success) return accepted(parsed.data);
  const [issue] = parsed.error.issues;
  return refused("not-a-push", `${issue?.path.join(".") ?? "the push"}: ${issue?.message ?? "not valid"}`);
}

function typeOf(ref: string): Push["type"] {
  if (ref.startsWith("refs/tags/")) return "tag";
  return ref.startsWith("refs/patches/") ? "patch" : "push";
}
