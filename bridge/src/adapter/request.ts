import { accepted, commitSchema, parseRadicleUrl, refused, type Result, runnerIdSchema } from "@plumule/protocol";
import * as z from "zod";

const author = z.looseObject({ id: runnerIdSchema });

/**
 * What radicle-ci-broker writes to an adapter, version 1 of its protocol (radicle-ci-adapter's `Request`), as far as it is used: everything else may be
 * there or not. `before` and `commits` are not read: in pushes `before` is always `after`, and after a reset the newest of `commits` is what was left behind.
 */
const requestSchema = z.looseObject({
  request: z.literal("trigger"),
  version: z.literal(1),
  repository: z.looseObject({
    id: z.string().refine((id) => parseRadicleUrl(id) !== null, "a repository id, rad:z…"),
    private: z.boolean().optional(),
    delegates: z.array(z.string()).default([]),
  }),
  pusher: author.nullish(),
  branch: z.string().min(1).nullish(),
  after: commitSchema.nullish(),
  patch: z
    .looseObject({
      id: commitSchema,
      author,
      title: z.string().nullish(),
      before: commitSchema.nullish(),
      after: commitSchema,
    })
    .nullish(),
});

/**
 * What is to be run: the head of a patch, or what a name leads to in the refs of `author`. The protocol does not say whether that is a
 * branch or a tag, nor whether `after` is a commit or an annotated tag. `repository` is `z…`, people are did:key.
 */
export type Change = { repository: string; isPrivate: boolean; delegates: string[]; author: string; after: string } & (
  | { kind: "ref"; name: string }
  | { kind: "patch"; patch: string; base: string | null; title: string | null }
);

/** Reads the line of a request. */
export function readRequest(line: string): Result<Change, "not-a-request"> {
  let document: unknown;
  try {
    document = JSON.parse(line);
  } catch {
    return refused("not-a-request", "it is no JSON");
  }
  const parsed = requestSchema.safeParse(document);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    return refused("not-a-request", `/${issue?.path.join("/") ?? ""}: ${issue?.message}`);
  }
  const { repository, pusher, branch, after, patch } = parsed.data;
  const common = {
    repository: parseRadicleUrl(repository.id)?.id ?? "",
    // What is not known to be public is private.
    isPrivate: repository.private !== false,
    delegates: repository.delegates.filter((did) => runnerIdSchema.safeParse(did).success),
  };
  if (patch != null) {
    const { id, before, title } = patch;
    const about = { patch: id, base: before ?? null, title: title ?? null };
    return accepted({ ...common, ...about, kind: "patch", author: patch.author.id, after: patch.after });
  }
  if (pusher == null || branch == null || after == null)
    return refused("not-a-request", "it has neither `patch` nor `pusher`, `branch` and `after`");
  return accepted({ ...common, kind: "ref", author: pusher.id, after, name: branch });
}

/** The first answer: the job is on its way, and where people see it. No other fields: radicle-ci-broker refuses those that it does not know. */
export function triggeredLine(job: string, infoUrl: string): string {
  return JSON.stringify({ response: "triggered", run_id: { id: job }, info_url: infoUrl });
}

/** The last answer. There are only these two results. */
export function finishedLine(result: "success" | "failure"): string {
  return JSON.stringify({ response: "finished", result });
}
