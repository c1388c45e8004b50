import * as z from "zod";

/**
 * Webhook bodies of others, as far as plumule reads them, with every variant that was met: Radicle Garden (its documentation, server and three
 * receivers disagree about which fields are there) and GitHub (`push`). What they say is checked again as plumule's own `pushBodySchema`.
 */
const text = z.string().max(4_000);
const person = z.looseObject({ id: text.nullish() }).nullish();
/** Where Garden wants to hear what became of the commit, and the name under which it files that. */
const answer = { context: text.nullish(), commit_status_url: text.nullish() };

/** Garden's repository; `id` comes with and without `rad:`. */
export const gardenRepositorySchema = z.looseObject({
  id: z.string().max(200),
  default_branch: text.nullish(),
  clone_url: text.nullish(),
  http_url: text.nullish(),
  delegates: z.array(text).nullish(),
  seeder: text.nullish(),
});
export type GardenRepository = z.output<typeof gardenRepositorySchema>;

/** Garden's push. `branch` comes as `main`, as a whole ref, and as a ref behind a node id; `before` often is the same as `after`. */
export const gardenPushSchema = z.looseObject({
  ...answer,
  repository: gardenRepositorySchema,
  author: person,
  branch: text.nullish(),
  before: text.nullish(),
  after: text,
  commits: z.array(z.looseObject({ id: text.nullish(), title: text.nullish() })).nullish(),
});
export type GardenPush = z.output<typeof gardenPushSchema>;

/**
 * Garden's patch. `action` comes in any case; without `after` the newest revision tells the commit. `before` is the commit that the patch
 * starts from. A revision has an author of its own, who need not be that of the patch.
 */
export const gardenPatchSchema = z.looseObject({
  ...answer,
  repository: gardenRepositorySchema,
  action: text.nullish(),
  patch: z.looseObject({
    id: z.string().max(64),
    title: text.nullish(),
    author: person,
    before: text.nullish(),
    after: text.nullish(),
    revisions: z.array(z.looseObject({ oid: text.nullish(), base: text.nullish(), author: person })).nullish(),
  }),
});
export type GardenPatch = z.output<typeof gardenPatchSchema>;

/** GitHub's push. */
export const githubPushSchema = z.looseObject({
  ref: text,
  before: text.nullish(),
  after: text,
  repository: z.looseObject({ clone_url: text }),
  sender: z.looseObject({ login: text.nullish() }).nullish(),
  head_commit: z.looseObject({ message: z.string().nullish() }).nullish(),
});
export type GithubPush = z.output<typeof githubPushSchema>;
