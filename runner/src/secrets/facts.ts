import type { SecretFacts, SubmitBody } from "@plumule/protocol";
import { type CommitSource, type FetchOptions, placesOf, readCommit } from "../mirror.ts";
import { commitSigner } from "./commit-signature.ts";

/**
 * What this machine finds out by itself about a job's commit, for the conditions of its secrets: who signed the commit, and which repository
 * holds it in which branch, asked of that repository now. One entry per place of the source, because a branch counts in its own repository
 * alone; the first entry knows no place.
 */
export async function gatherFacts(
  deployment: string,
  source: SubmitBody["source"],
  options: FetchOptions,
): Promise<SecretFacts[]> {
  const nowhere: SecretFacts = { deployment, repository: null, branch: null, delegate: null };
  if (source === undefined) return [nowhere];
  const commit: CommitSource = source;
  const object = await readCommit(commit, options);
  const delegate = object === null ? null : await commitSigner(object);
  const places = await placesOf(commit, options);
  const wanted = /^refs\/heads\/(.+)$/.exec(source.ref ?? "")?.[1] ?? null;
  return [
    { ...nowhere, delegate },
    ...places
      .filter(({ holds }) => holds)
      .map(({ repository, branches }) => ({
        deployment,
        repository,
        branch: wanted !== null && branches.includes(wanted) ? wanted : null,
        delegate,
      })),
  ];
}
