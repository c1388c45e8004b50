import {
  commitSchema,
  fieldErrors,
  type FieldError,
  pushBodySchema,
  type Push,
  refuse,
  type Refusal,
} from "@plumule/protocol";
import * as z from "zod";
import { isZeroCommit } from "./triggers.ts";

/** What a verified webhook says: a push, or something that starts no job. */
export type HookEvent = { kind: "push"; push: Push } | { kind: "other"; type: string; detail: string };

/** What is known about a webhook beside its body. `eventType` comes from a header that no signature covers. */
export type HookContext = { eventType: string | null; audience: string; signedByKey: boolean };

/** Known fields only: what is not understood is not stored. */
const pushSchema = z.object(pushBodySchema.shape);
const text = z.string().max(4_000);

/** Garden's repository; `id` comes with and without `rad:`. */
const gardenRepositorySchema = z.looseObject({
  id: z.string().max(200),
  default_branch: text.nullish(),
  clone_url: text.nullish(),
  http_url: text.nullish(),
  seeder: text.nullish(),
});
const gardenAuthorSchema = z.looseObject({ id: text.nullish() }).nullish();
const gardenPushSchema = z.looseObject({
  repository: gardenRepositorySchema,
  author: gardenAuthorSchema,
  branch: text.nullish(),
  before: text.nullish(),
  after: text,
  commits: z.array(z.looseObject({ id: text.nullish(), title: text.nullish() })).nullish(),
});
const gardenPatchSchema = z.looseObject({
  repository: gardenRepositorySchema,
  action: text.nullish(),
  patch: z.looseObject({
    id: z.string().max(64),
    title: text.nullish(),
    author: gardenAuthorSchema,
    before: text.nullish(),
    after: text.nullish(),
    revisions: z.array(z.looseObject({ oid: text.nullish() })).nullish(),
  }),
});
const githubPushSchema = z.looseObject({
  ref: text,
  before: text.nullish(),
  after: text,
  repository: z.looseObject({ clone_url: text }),
  sender: z.looseObject({ login: text.nullish() }).nullish(),
  head_commit: z.looseObject({ message: z.string().nullish() }).nullish(),
});

/**
 * Reads the body of a verified webhook: plumule's own, Radicle Garden's or GitHub's. The body's shape decides which it is, since the
 * header is not signed; the header only tells which events are no pushes. The audience is asked of plumule's own body, and
 * only that may be signed with a key: a key is trusted by many brokers, a secret by one.
 */
export function readHookBody(value: unknown, context: HookContext): HookEvent | Refusal {
  const body = z.looseObject({ repository: z.unknown() }).safeParse(value);
  if (!body.success) return refuse("invalid-body", "The body is not an object.", { errors: fieldErrors(body.error) });
  if (typeof body.data.repository === "string") return readOwn(value, context.audience);
  const type = context.eventType?.toLowerCase() ?? null;
  if (type !== null && !/^(?:push|patch)/.test(type))
    return {
      kind: "other",
      type,
      detail: type.includes("deleted")
        ? "the ref was deleted: there is nothing to build"
        : `events of the type ${type} start no job`,
    };
  if (context.signedByKey)
    return refuse("invalid-body", "A webhook that is signed with a key needs plumule's own body.", {
      errors: [{ pointer: "/repository", detail: "a repository URL is expected, beside `audience`" }],
    });
  if ("patch" in body.data) return readWith(gardenPatchSchema, value, context, fromGardenPatch);
  const repository = z.looseObject({ id: z.string() }).safeParse(body.data.repository);
  return repository.success
    ? readWith(gardenPushSchema, value, context, fromGardenPush)
    : readWith(githubPushSchema, value, context, fromGithubPush);
}

function readOwn(value: unknown, audience: string): HookEvent | Refusal {
  const push = checkPush(value);
  if ("refused" in push || push.push.audience === audience) return push;
  return refuse("invalid-body", "The webhook is for another broker or namespace.", {
    errors: [{ pointer: "/audience", detail: `${push.push.audience} given, ${audience} expected` }],
  });
}

type Draft = Omit<z.input<typeof pushSchema>, "audience">;

function readWith<S extends z.ZodType>(
  schema: S,
  value: unknown,
  { audience }: HookContext,
  map: (body: z.output<S>) => Draft | { type: string; detail: string },
): HookEvent | Refusal {
  const parsed = schema.safeParse(value);
  if (!parsed.success)
    return refuse("invalid-body", "The body is none of the known kinds.", { errors: fieldErrors(parsed.error) });
  const draft = map(parsed.data);
  return "detail" in draft ? { kind: "other", ...draft } : checkPush({ ...draft, audience });
}

function checkPush(draft: unknown): { kind: "push"; push: Push } | Refusal {
  const parsed = pushSchema.safeParse(draft);
  const errors: FieldError[] = parsed.success ? [] : fieldErrors(parsed.error);
  const after = parsed.data?.after ?? "";
  if (parsed.success && !isZeroCommit(after) && !commitSchema.safeParse(after).success)
    errors.push({ pointer: "/after", detail: "a full commit id of 40 or 64 lower-case hex digits is expected" });
  return parsed.success && errors.length === 0
    ? { kind: "push", push: parsed.data }
    : refuse("invalid-body", "The push is not valid.", { errors });
}

function fromGardenPush({
  repository,
  author,
  branch,
  before,
  after,
  commits,
}: z.output<typeof gardenPushSchema>): Draft {
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

function fromGardenPatch({
  repository,
  action,
  patch,
}: z.output<typeof gardenPatchSchema>): Draft | { type: string; detail: string } {
  const verb = action?.toLowerCase() ?? "updated";
  if (verb !== "created" && verb !== "updated")
    return { type: `patch ${verb}`, detail: `a patch that was ${verb} has no new commit` };
  const after = patch.after ?? patch.revisions?.at(-1)?.oid ?? "";
  return {
    ...originOf(repository),
    type: "patch",
    ref: `refs/patches/${patch.id}`,
    before: patch.before,
    after,
    author: patch.author?.id,
    patch: patch.id,
    message: patch.title,
  };
}

function fromGithubPush({
  ref,
  before,
  after,
  repository,
  sender,
  head_commit: head,
}: z.output<typeof githubPushSchema>): Draft {
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

function originOf({
  id,
  clone_url: clone,
  http_url: http,
  seeder,
}: z.output<typeof gardenRepositorySchema>): Pick<Draft, "repository" | "urls" | "node"> {
  const urls = [...new Set([clone, http])].filter((url) => url?.startsWith("https://") === true) as string[];
  return { repository: id.startsWith("rad:") ? id : `rad:${id}`, urls, node: seeder };
}

/** A branch comes as `main`, as `refs/heads/main` or as `<node id>/refs/heads/main`. */
function refOfBranch(branch: string): string {
  const ref = /^(?:z6Mk[1-9A-HJ-NP-Za-km-z]{44}\/)?(refs\/.+)$/.exec(branch)?.[1];
  return ref ?? `refs/heads/${branch}`;
}

function typeOfRef(ref: string): "push" | "tag" {
  return ref.startsWith("refs/tags/") ? "tag" : "push";
}
