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
  pushBodySchema,
  type Push,
  refuse,
  type Refusal,
} from "@plumule/protocol";
import { isZeroCommit } from "./triggers.ts";

/** What a verified webhook says: a push, or something that starts no job. */
export type HookEvent = { kind: "push"; push: Push } | OtherEvent;
type OtherEvent = { kind: "other"; type: string; detail: string };

/** What is known about a webhook beside its body. `eventType` comes from a header that no signature covers. */
export type HookContext = { eventType: string | null; audience: string; signedByKey: boolean };

/** What a foreign body says in the words of a push; `checkPush` decides whether it is one. */
type Draft = Record<"type" | "repository" | "ref" | "after", string> & Partial<Record<keyof Push, unknown>>;

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
  return checkPush({ ...read, audience: context.audience });
}

/** Why a push that deletes a ref makes no job. */
const DELETED = "the ref was deleted: there is nothing to build";

function readOwn(value: unknown, audience: string): HookEvent | Refusal {
  const event = checkPush(value);
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
function checkPush(draft: unknown): { kind: "push"; push: Push } | Refusal {
  const parsed = pushBodySchema.strip().safeParse(draft);
  if (!parsed.success) return refuse("invalid-body", "The push is not valid.", { errors: fieldErrors(parsed.error) });
  return isZeroCommit(parsed.data.after) || commitSchema.safeParse(parsed.data.after).success
    ? { kind: "push", push: parsed.data }
    : invalid("/after", "a full commit id of 40 or 64 lower-case hex digits is expected");
}

function fromGardenPush({ repository, author, branch, before, after, commits }: GardenPush): Draft {
  const ref = refOfBranch(branch ?? repository.default_branch ?? "");
  const head = commits?.find(({ id }) => id === after) ?? commits?.[0];
  return {
    ...originOf(repository),
    type: typeOfRef(ref),
    ref,
    before,
    after,
    author: author?.id,
    message: head?.title,
  };
}

function fromGardenPatch({ repository, action, patch }: GardenPatch): Draft | OtherEvent {
  const verb = action?.toLowerCase() ?? "updated";
  if (verb !== "created" && verb !== "updated")
    return other(`patch ${verb}`, `a patch that was ${verb} has no new commit`);
  return {
    ...originOf(repository),
    type: "patch",
    ref: `refs/patches/${patch.id}`,
    before: patch.before,
    after: patch.after ?? patch.revisions?.at(-1)?.oid ?? "",
    author: patch.author?.id,
    patch: patch.id,
    message: patch.title,
  };
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

function originOf({ id, clone_url: clone, http_url: http, seeder }: GardenRepository): {
  repository: string;
  urls: string[];
  node: string | null | undefined;
} {
  const urls = [clone, http].filter((url) => url?.startsWith("https://") === true) as string[];
  return { repository: id.startsWith("rad:") ? id : `rad:${id}`, urls: [...new Set(urls)], node: seeder };
}

function refOfBranch(branch: string): string {
  const ref = /^(?:z6Mk[1-9A-HJ-NP-Za-km-z]{44}\/)?(refs\/.+)$/.exec(branch)?.[1];
  return ref ?? `refs/heads/${branch}`;
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
