import {
  commitSchema,
  fieldErrors,
  type FieldError,
  type GardenPatch,
  gardenPatchSchema,
  type GardenPush,
  gardenPushSchema,
  type GardenRepository,
  type GithubPush,
  githubPushSchema,
  isRefusal,
  LIMITS,
  pushBodySchema,
  type Push,
  refuse,
  type Refusal,
  runnerIdSchema,
  didOf,
  isZeroCommit,
} from "@plumule/protocol";

/**
 * What a verified webhook says: a push, or something that starts no job. `status` is where Garden wants to hear what becomes of it. It is a
 * wish of the sender, which is checked before anything is sent there.
 */
export type HookEvent = { kind: "push"; push: Push; status: StatusTarget | null } | OtherEvent;
type OtherEvent = { kind: "other"; type: string; detail: string };

/** An answer that Garden waits for: where to, and its own words for node, repository, commit and context. */
export type StatusTarget = { url: string; node: string; repository: string; commit: string; context: string };

/** What is known about a webhook beside its body. `eventType` comes from a header that no signature covers. */
export type HookContext = { eventType: string | null; audience: string; signedByKey: boolean };

/** What a foreign body says in the words of a push; `checkPush` decides whether it is one. */
type Draft = Record<"type" | "repository" | "ref" | "after", string> &
  Partial<Record<keyof Push, unknown>> & { status?: StatusTarget | null };

/**
 * Reads the body of a verified webhook: plumule's own, Radicle Garden's or GitHub's. The body's shape decides which it is, since the
 * header is not signed; the header only tells which events are no pushes. The audience is asked of plumule's own body, and
 * only that may be signed with a key: a key is trusted by many brokers, a secret by one.
 */
export function readHookBody(value: unknown, context: HookContext): HookEvent | Refusal {
  if (!isObject(value)) return invalid("", "an object is expected");
  const { repository } = value;
  if (typeof repository === "string") return readOwn(value, context.audience);
  const type = context.eventType?.toLowerCase() ?? null;
  if (type !== null && !/^(?:push|patch)/.test(type))
    return other(type, type.includes("deleted") ? DELETED : `events of the type ${type} start no job`);
  if (context.signedByKey)
    return invalid("/repository", "under a key only plumule's own body is taken: a repository URL, beside `audience`");
  const read = readForeign(value, repository);
  if (isRefusal(read) || isOther(read)) return read;
  const { status, ...draft } = read;
  return checkPush({ ...draft, audience: context.audience }, status ?? null);
}

/** The author that Garden does not name. Everybody may push to Radicle, so that nobody vouches for them. */
const NOBODY = "unknown";
/** Why a push that deletes a ref makes no job. */
const DELETED = "the ref was deleted: there is nothing to build";

function readOwn(value: unknown, audience: string): HookEvent | Refusal {
  const event = checkPush(value, null);
  if (isRefusal(event) || event.push.audience === audience) return event;
  return invalid("/audience", `the webhook is for ${event.push.audience}, this is ${audience}`);
}

function readForeign(value: Record<string, unknown>, repository: unknown): Draft | OtherEvent | Refusal {
  if ("patch" in value) {
    const patch = gardenPatchSchema.safeParse(value);
    return patch.success ? fromGardenPatch(patch.data) : unknownKind(fieldErrors(patch.error));
  }
  if (isObject(repository) && typeof repository["id"] === "string") {
    const push = gardenPushSchema.safeParse(value);
    return push.success ? fromGardenPush(push.data) : unknownKind(fieldErrors(push.error));
  }
  const push = githubPushSchema.safeParse(value);
  return push.success ? fromGithubPush(push.data) : unknownKind(fieldErrors(push.error));
}

/** Takes known fields only: what is not understood is not stored. */
function checkPush(
  draft: unknown,
  status: StatusTarget | null,
): { kind: "push"; push: Push; status: StatusTarget | null } | Refusal {
  const parsed = pushBodySchema.strip().safeParse(draft);
  if (!parsed.success) return refuse("invalid-body", "The push is not valid.", { errors: fieldErrors(parsed.error) });
  return isZeroCommit(parsed.data.after) || commitSchema.safeParse(parsed.data.after).success
    ? { kind: "push", push: parsed.data, status }
    : invalid("/after", "a full commit id of 40 or 64 lower-case hex digits is expected");
}

function fromGardenPush(push: GardenPush): Draft {
  const { repository, author, branch, before, after, commits } = push;
  const { ref, node } = refOfBranch(branch ?? repository.default_branch ?? "");
  const head = commits?.find(({ id }) => id === after) ?? commits?.[0];
  return {
    ...originOf(repository),
    type: typeOfRef(ref),
    ref,
    // Garden's source has no other commit to tell: equal ones say nothing about what was there before.
    before: before === after ? undefined : before,
    after,
    // Whoever owns the ref has pushed to it.
    author: node ?? author?.id ?? NOBODY,
    message: head?.title,
    status: statusOf(push, after),
  };
}

function fromGardenPatch(body: GardenPatch): Draft | OtherEvent {
  const { repository, action, patch } = body;
  const verb = action?.toLowerCase() ?? "updated";
  if (verb !== "created" && verb !== "updated")
    return other(`patch ${verb}`, `a patch that was ${verb} has no new commit`);
  const revisions = patch.revisions ?? [];
  const after = patch.after ?? revisions.at(-1)?.oid ?? "";
  const at = revisions.findLastIndex(({ oid }) => oid === after);
  const revision = revisions[at];
  return {
    ...originOf(repository),
    type: "patch",
    ref: `refs/patches/${patch.id}`,
    before: revisions[at - 1]?.oid,
    after,
    // Anybody can add a revision to the patch of a delegate.
    author: (revision === undefined ? patch.author?.id : revision.author?.id) ?? NOBODY,
    patch: patch.id,
    message: patch.title,
    ...(revisions.length === 0 ? {} : { number: revisions.length }),
    // What is no commit id is no reason to refuse the rest.
    base: commitSchema.safeParse(revision?.base ?? patch.before).data,
    status: statusOf(body, after),
  };
}

function statusOf(
  { context, commit_status_url: url, repository }: GardenPush | GardenPatch,
  commit: string,
): StatusTarget | null {
  if (url == null || context == null || repository.seeder == null) return null;
  return { url, node: repository.seeder, repository: repository.id, commit, context };
}

function fromGithubPush({ ref, before, after, repository, sender, head_commit: head }: GithubPush): Draft {
  return {
    type: typeOfRef(ref),
    repository: repository.clone_url,
    ref,
    before,
    after,
    author: sender?.login,
    message: head?.message?.slice(0, 2_000),
  };
}

function originOf({ id, clone_url: clone, http_url: http, delegates, seeder }: GardenRepository): Partial<Draft> & {
  repository: string;
} {
  const urls = [clone, http].filter((url) => url?.startsWith("https://") === true) as string[];
  return {
    repository: id.startsWith("rad:") ? id : `rad:${id}`,
    urls: [...new Set(urls)],
    node: seeder,
    ...(delegates == null ? {} : { delegates: delegates.map(didOf).filter(isRunnerId).slice(0, LIMITS.delegates) }),
  };
}

function isRunnerId(did: string): boolean {
  return runnerIdSchema.safeParse(did).success;
}

/** A branch's name, or a ref, which may stand in the namespace of the node that owns it. */
function refOfBranch(branch: string): { ref: string; node: string | undefined } {
  const [, node, ref] =
    /^(?:(?:refs\/namespaces\/)?(z6Mk[1-9A-HJ-NP-Za-km-z]{44})\/)?(refs\/(?!namespaces\/).+)$/.exec(branch) ?? [];
  return { ref: ref ?? `refs/heads/${branch}`, node: node === undefined ? undefined : didOf(node) };
}

function typeOfRef(ref: string): "push" | "tag" {
  return ref.startsWith("refs/tags/") ? "tag" : "push";
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function other(type: string, detail: string): OtherEvent {
  return { kind: "other", type, detail };
}

function isOther(read: Draft | OtherEvent): read is OtherEvent {
  return "kind" in read;
}

function invalid(pointer: string, detail: string): Refusal {
  return refuse("invalid-body", "The webhook's body is not valid.", { errors: [{ pointer, detail }] });
}

function unknownKind(errors: readonly FieldError[]): Refusal {
  return refuse("invalid-body", "The body is none of the known kinds.", { errors });
}
